/** Masks that come while their step computes, on their way into the step's state. Knows plans of draws; records nothing. */

import { maskWords } from "../../kernels/logits/mask_logits.ts";
import { EngineError } from "../errors.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { StepState } from "../pass/step_state.ts";
import type { DrawPlan } from "./draw_plan.ts";

/** Whether draws wait for masks. */
export function lacksMasks({ blocks }: DrawPlan): boolean {
  return blocks.some(({ masked }) => masked !== undefined && masked.late.length > 0);
}

/**
 * Uploads the masks that the plan's draws lack; takes effect after what was recorded before.
 * @param masks as `LateMasks` gives them
 * @throws {EngineError} `invalid_step` when there are more or fewer than the draws lack
 */
export function writeLateMasks(
  { commands, config: { vocabSize } }: LoadedModel,
  state: StepState,
  { plan: { blocks }, masks }: { readonly plan: DrawPlan; readonly masks: Uint32Array },
): void {
  const words = maskWords(vocabSize);
  const late = blocks.flatMap(({ masked }) => masked?.late ?? []);
  if (masks.length !== late.length * words) {
    const why = `its late masks have ${masks.length} words, not ${late.length * words}`;
    throw new EngineError("invalid_step", `Cannot draw: ${why}`);
  }
  // Blocks follow the batches of a step, whose order need not be that of its spans.
  const spans = late.map(({ span }) => span).sort((a, b) => a - b);
  for (const { masked } of blocks) {
    if (masked === undefined || masked.late.length === 0) continue;
    for (const { at, span } of masked.late) {
      const rank = spans.indexOf(span);
      masked.data.set(masks.subarray(rank * words, (rank + 1) * words), at * words);
    }
    commands.write(state.tensor(masked.masks), masked.data);
  }
}
