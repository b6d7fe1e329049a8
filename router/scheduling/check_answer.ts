/** Whether the result of a span is what the span asked for. Knows both; knows nothing of sequences. */

import { EngineError } from "../../engine/errors.ts";
import type { Span, SpanResult } from "../../engine/span.ts";

/** @throws {EngineError} `invalid_step` when a token is missing, or there is one too many */
export function checkAnswer({ sequence, logits, tokens }: Span, result: SpanResult | undefined): void {
  const drawn = result?.token !== undefined;
  const audited = result?.audit?.tokens.length ?? 0;
  const expected = logits === "audit"
    ? { drawn: false, audited: tokens.length }
    : { drawn: logits !== "none", audited: 0 };
  if (result?.sequence === sequence && drawn === expected.drawn && audited === expected.audited) return;
  const answer = result === undefined
    ? "nothing"
    : `sequence ${result.sequence}, token ${result.token} and ${audited} audited rows`;
  throw new EngineError(
    "invalid_step",
    `Cannot take the result of sequence ${sequence}: the group answered ${answer} to logits ${logits}`,
  );
}
