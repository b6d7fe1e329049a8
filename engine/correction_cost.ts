/** Where corrections are worth making unasked: by the shape of the model and the kind of adapter, never by a clock. */

import type { ModelConfig } from "./model/model_config.ts";

/**
 * Contexts that matrix units make as cheap as others are without them, over those: with them a row's products take 3 to 4 % of a
 * sparse step, and attention to 98,304 positions 7 % (8B shape, H200).
 */
const MATRIX_GAIN = 8;

/**
 * The longest context at which correcting every sparse row takes about 15 % of the time of decoding, or less; 0 where no
 * context is that short. A corrected row costs arithmetic: two operations for each weight, and four for each position, head
 * dimension, head and layer. A decode step costs reading the weights. Measured on an H100 with an 8B shape the products of a
 * row alone take about 12 % without matrix units, and attention of half as much arithmetic brings the share to the bound. A
 * software adapter reads faster than it computes, so that a corrected row costs as much as a decoded one. Quantised weights are
 * a quarter to a half as much to read, and their rows are multiplied without matrix units: the products of a corrected row alone
 * take 18 % or more.
 */
export function cheapCorrectionContext(
  { layers, heads, headDim }: Pick<ModelConfig, "layers" | "heads" | "headDim">,
  { parameters, software, matrix, quantized }: {
    readonly parameters: number;
    readonly software: boolean;
    /** Whether rows are multiplied on matrix units. */
    readonly matrix: boolean;
    readonly quantized: boolean;
  },
): number {
  if (software || quantized) return 0;
  return Math.floor((matrix ? MATRIX_GAIN : 1) * parameters / (4 * layers * heads * headDim));
}
