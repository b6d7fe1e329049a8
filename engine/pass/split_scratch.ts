/** Where the states of a decode call's splits lie until they are merged. */

import { scratchShape } from "../../kernels/attention/split/split_scratch.ts";
import type { AttentionState } from "../../kernels/attention/kv_pages.ts";
import type { LoadedModel } from "../loaded_model.ts";

/** Working memory for the splits of rows, as many as `scratchShape` says. It lasts until the next call. */
export function splitScratch(
  { scratch, config: { heads, kvHeads, headDim } }: Pick<LoadedModel, "scratch" | "config">,
  visited: Parameters<typeof scratchShape>[1],
): AttentionState {
  const { o, lse } = scratchShape({ heads, kvHeads, headDim }, visited);
  return { o: scratch.take("split outputs", "f32", o), lse: scratch.take("split lse", "f32", lse) };
}
