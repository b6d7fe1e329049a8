/** How much a dense span computes. Knows shapes of models; measures nothing. */

import type { ModelConfig } from "../../../engine/model/model_config.ts";

/** A dense span, as far as its cost goes. */
export interface CountedSpan {
  /** Position of the first row. */
  readonly from: number;
  readonly rows: number;
  /** Rows whose logits are made. */
  readonly headRows: number;
}

/**
 * Floating-point operations of a dense span: two for each row and weight of a matrix product (the head only for rows with
 * logits), and four for each visited KV row, query head and head dimension of each layer. Norms, rotations and softmax are
 * left out, and what several workers compute alike is counted once.
 */
export function denseSpanFlop(config: ModelConfig, { from, rows, headRows }: CountedSpan): number {
  const { layers, hidden, ffn, heads, kvHeads, headDim, vocabSize, slidingWindow = Infinity } = config;
  const attention = (heads + 2 * kvHeads) * headDim * hidden + hidden * heads * headDim;
  const weights = layers * (attention + 3 * hidden * ffn);
  let visited = 0;
  for (let row = 0; row < rows; row++) visited += Math.min(from + row + 1, slidingWindow);
  return 2 * (rows * weights + headRows * vocabSize * hidden) + 4 * visited * heads * headDim * layers;
}
