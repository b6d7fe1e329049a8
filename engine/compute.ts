/**
 * Computes a step that was admitted: its batches through the layers, rows to the head, and results back to their spans.
 * Knows batches and spans; knows nothing of how sequences are opened or refused.
 */

import { type Batch, planBatches } from "./batch.ts";
import { forward, type Model } from "./forward.ts";
import { copyRows, draw, drawnRows, score } from "./sampler.ts";
import type { SequenceState } from "./sequences.ts";
import type { SequenceId, SpanResult, Step, StepResult } from "./span.ts";

/** Scores of one span so far, in order of its rows. */
interface SpanScores {
  readonly logprob: number[];
  readonly argmax: number[];
}

/**
 * Runs all spans of a step, and waits for the GPU.
 * @param sequences as they are once the step's sequences are opened and its tokens are known
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function compute(
  model: Model,
  step: Step,
  sequences: ReadonlyMap<SequenceId, SequenceState>,
): Promise<StepResult> {
  const start = performance.now();
  const { commands, config } = model;
  const maxScores = Math.floor(commands.gpu.info.maxBindingBytes / (4 * config.heads));
  const batches = planBatches(step.spans, { sequences, window: config.slidingWindow, maxScores });
  const drawn = batches.flatMap((batch) => batch.drawn);
  const waiting = drawnRows(model, drawn.length);
  const scores = step.spans.map((): SpanScores => ({ logprob: [], argmax: [] }));
  let at = 0;
  for (const batch of batches) {
    const x = await forward(model, batch, step.index);
    copyRows(model, { from: x, to: waiting, rows: batch.drawn.map(({ row }) => row), at });
    at += batch.drawn.length;
    await keepScores(model, { x, batch, scores });
  }
  commands.submit();
  const encoded = performance.now();
  const tokens = await draw(model, waiting, drawn);
  if (tokens.length === 0) await commands.gpu.read([]);
  const end = performance.now();
  const tokenOf = new Map(drawn.map(({ span }, i) => [span, tokens[i]]));
  return {
    index: step.index,
    spans: step.spans.map(({ sequence, logits }, i): SpanResult => {
      const result = tokenOf.get(i);
      return {
        sequence,
        ...(result && { token: result.token }),
        ...(result?.logprobs && { logprobs: result.logprobs }),
        ...(logits === "all" && { scores: packed(scores[i]) }),
      };
    }),
    timing: { encodeMs: encoded - start, waitMs: end - encoded, totalMs: end - start },
  };
}

/** Scores the rows of a batch whose next token is known. */
async function keepScores(
  model: Model,
  { x, batch, scores }: {
    readonly x: Awaited<ReturnType<typeof forward>>;
    readonly batch: Batch;
    readonly scores: readonly SpanScores[];
  },
): Promise<void> {
  const { logprob, argmax } = await score(model, x, { rows: batch.scored, product: batch.product });
  for (const [i, { span }] of batch.scored.entries()) {
    scores[span]?.logprob.push(logprob[i] ?? NaN);
    scores[span]?.argmax.push(argmax[i] ?? 0);
  }
}

function packed(scores: SpanScores | undefined): NonNullable<SpanResult["scores"]> {
  return { logprob: Float32Array.from(scores?.logprob ?? []), argmax: Uint32Array.from(scores?.argmax ?? []) };
}
