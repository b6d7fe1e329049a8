/** What a fake group knows of a sequence's tokens besides those of a span: its prefix, and what the step before drew. */

import assert from "node:assert/strict";
import type { OpenSequence } from "../../engine/check_step.ts";
import type { LateMasks, SequenceId, SequenceOpening, Span, SpanResult, Step } from "../../engine/span.ts";

/** What a page holds, row by row. */
export interface PageContent {
  readonly tokens: Uint32Array;
  /** Hash of all tokens up to this row, the row included. */
  readonly chain: Uint32Array;
  readonly exact: boolean[];
}

/** A sequence that is open. */
export interface FakeSequence {
  readonly open: SequenceOpening;
  readonly pages: number[];
  length: number;
}

/** The same, as the check of a step sees it. */
export function openSequence({ open, pages, length }: FakeSequence): OpenSequence {
  return { open, physicalPages: pages, tokens: { length } };
}

/** Why an opening's prefix tokens are not those that its penalties count, if so. */
export function faultOfPrefixTokens(
  { sampling, prefixTokens, promptTokens }: SequenceOpening,
  prefix: readonly number[],
): string | undefined {
  const output = prefix.length > promptTokens && (sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0);
  const needed = sampling.repetitionPenalty !== 1 || output;
  if (prefixTokens.length !== (needed ? prefix.length : 0)) return "lacks its prefix tokens";
  return prefixTokens.every((token, i) => token === prefix[i]) ? undefined : "has another's prefix";
}

/** What spans have drawn last, by sequence. */
export function drawnBy(results: readonly SpanResult[]): ReadonlyMap<SequenceId, number> {
  return new Map(results.flatMap(({ sequence, token, audit }) => {
    const last = token ?? audit?.tokens.at(-1);
    return last === undefined ? [] : [[sequence, last]];
  }));
}

/** A span with the token that it was not told. @param drawn by the step before */
export function told(span: Span, drawn: ReadonlyMap<SequenceId, number>): Span {
  if (!span.sampled) return span;
  const token = drawn.get(span.sequence);
  assert.ok(token !== undefined, `the step before drew nothing for sequence ${span.sequence}`);
  assert.ok(span.kind === "decode", "a sampled span does not decode");
  return { ...span, tokens: Uint32Array.of(...span.tokens.subarray(0, -1), token) };
}

/** A step with the masks that followed it, where its spans would have carried them. */
export async function withLateMasks(step: Step, late: LateMasks | undefined): Promise<Step> {
  const followed = step.spans.filter(({ masksFollow }) => masksFollow);
  assert.equal(late !== undefined, followed.length > 0, "masks follow for spans that lack them");
  if (late === undefined) return step;
  const masks = await late;
  const words = masks.length / followed.length;
  const spans = step.spans.map((span) => {
    const at = followed.indexOf(span) * words;
    return at < 0 ? span : { ...span, masks: masks.slice(at, at + words) };
  });
  return { ...step, spans };
}
