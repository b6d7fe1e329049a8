/** Where drawn tokens lie on the GPU, until the draws of the next step: a block of them after the other. */

import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { SequenceId } from "../span.ts";
import type { DrawPlan } from "./draw_plan.ts";
import { LOGIT_ROWS } from "./head.ts";

/** u32 [≥ blocks, LOGIT_ROWS]: blocks are so far apart that each can be bound. */
export function drawnTokens({ scratch }: Pick<LoadedModel, "scratch">, blocks: number): Tensor {
  return scratch.take("drawn tokens", "u32", [blocks, LOGIT_ROWS]);
}

/** By sequence: the place of the token that a step draws last for it. */
export function placesOf({ blocks }: DrawPlan): ReadonlyMap<SequenceId, number> {
  return new Map(
    blocks.flatMap(({ rows }, block) =>
      rows.map(({ sequence }, row): [SequenceId, number] => [sequence.open.sequence, block * LOGIT_ROWS + row])
    ),
  );
}
