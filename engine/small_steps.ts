/** Which models have steps that take longer to record than to compute. Knows shapes; what records them is the provider's. */

import type { ModelConfig } from "./model/model_config.ts";

/**
 * Weights of a layer. On an H200 Dawn records a layer's dispatches in about 60 µs, in which so many f16 weights are read
 * several times over; Deno's own takes half of that. Larger models also gain more by matrix units in their prompts.
 */
const MAX_LAYER_WEIGHTS = 4e6;

/** Whether a decode step of the model is mostly recording. */
export function hasSmallSteps({ hidden, ffn, heads, kvHeads, headDim }: ModelConfig): boolean {
  const attention = (2 * heads + 2 * kvHeads) * headDim * hidden;
  return attention + 3 * ffn * hidden < MAX_LAYER_WEIGHTS;
}
