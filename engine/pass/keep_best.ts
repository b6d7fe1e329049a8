/** The best positions of a run by their pooled scores: as many as its budget, or as its coverage takes. Knows lists and rows. */

import type { Selection } from "../../kernels/attention/decode_attention.ts";
import { topK } from "../../kernels/attention/top_k.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { ADAPTIVE_FLOOR } from "../layer_plan.ts";
import type { Pass } from "./pass.ts";
import type { SparseRun } from "./selection_buffers.ts";

/** What is chosen from, and where the choice goes. */
export interface Choosing {
  /** u32 [all rows, 8]: how many positions each row sees and chooses of those that have values. */
  readonly rowTable: Tensor;
  /** f32 [rows of the run, sets, stride] */
  readonly values: Tensor;
  readonly stride: number;
  readonly kept: Omit<Selection, "shapes">;
  /** Values of what is kept, in the same layout. @default they are not wanted */
  readonly keptValues?: Tensor;
  /** Layers that will read the selection. */
  readonly sparseLayers: number;
}

/** Keeps the best positions, and counts those of adaptive rows. */
export function keepBest(
  { model: { commands, scratch, config: { heads, kvHeads } }, counter }: Pass,
  run: SparseRun,
  { kept: { positions, sets, stride: keptStride }, sparseLayers, ...chosenFrom }: Choosing,
): void {
  topK(commands, {
    ...chosenFrom,
    ...{ firstRow: run.first, rows: run.rows, heads, kvHeads, sets, positions, keptStride, scratch },
    ...(run.sparse.coverage !== undefined && {
      adaptive: {
        floor: ADAPTIVE_FLOOR,
        tally: counter.counts,
        tallyAt: counter.at + run.first,
        weight: sparseLayers,
      },
    }),
  });
}
