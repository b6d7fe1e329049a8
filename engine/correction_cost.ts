/** Where corrections are worth making unasked: by the shape of the model and the kind of adapter, never by a clock. */

import type { ModelConfig } from "./model/model_config.ts";

/**
 * The longest context at which correcting every sparse row takes about 15 % of the time of decoding, or less; 0 where no
 * context is that short. A corrected row costs arithmetic: two operations for each weight, and four for each position, head
 * dimension, head and layer. A decode step costs reading the weights. Measured on an H100 with an 8B shape the products of a
 * row alone take about 12 %, and attention of half as much arithmetic brings the share to the bound. A software adapter
 * reads faster than it computes, so that a corrected row costs as much as a decoded one. Quantised weights are a quarter to a half
 * as much to read, and their rows are multiplied without matrix units: the products of a corrected row alone take 18 % or more.
 */
export function cheapCorrectionContext(
  { layers, heads, headDim }: Pick<ModelConfig, "layers" | "heads" | "headDim">,
  { parameters, software, quantized }: {
    readonly parameters: number;
    readonly software: boolean;
    readonly quantized: boolean;
  },
): number {
  return software || quantized ? 0 : Math.floor(parameters / (4 * layers * heads * headDim));
}
