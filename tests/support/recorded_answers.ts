/** Answers that were recorded for a model, and whether an engine gives them. */

import assert from "node:assert/strict";
import type { Engine } from "../../engine/engine.ts";
import { SessionHost } from "../../engine/evaluation/hand_session.ts";
import { everyLogprob, logprobsOf, withSession } from "./engine_fixture.ts";

/** A prompt, the logits after it, and what follows it greedily. */
export interface RecordedAnswer {
  readonly ids: number[];
  readonly logits: number[];
  readonly greedy: number[];
}

/** Three prompts: their greedy tokens as recorded, their log-probabilities within the tolerance. */
export async function assertRecordedAnswers(
  engine: Engine,
  prompts: readonly RecordedAnswer[],
  tolerance: number,
): Promise<void> {
  const host = new SessionHost(engine);
  assert.equal(prompts.length, 3);
  for (const { ids, logits, greedy } of prompts) {
    const [given, tokens] = await withSession(
      host,
      { sampling: everyLogprob(engine.config.vocabSize) },
      async (session) => {
        const first = await session.prefill(ids);
        return [logprobsOf(first), await session.generate(first.token ?? 0, { maxTokens: greedy.length })];
      },
    );
    const worst = logSoftmax(logits).reduce((most, x, i) => Math.max(most, Math.abs(x - (given[i] ?? NaN))), 0);
    assert.ok(worst <= tolerance, `${ids.length} tokens: off by ${worst}`);
    assert.deepEqual(tokens, greedy);
  }
}

function logSoftmax(logits: readonly number[]): number[] {
  const top = Math.max(...logits);
  const lse = top + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
  return logits.map((logit) => logit - lse);
}
