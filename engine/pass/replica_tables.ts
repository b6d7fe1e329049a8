/**
 * Where a batch appends its rows, and how far they see, when workers keep copies of each other's rows. Knows row tables;
 * knows nothing of what is copied.
 */

import { ROW_WORDS, setAppendRow, setVisibleRows } from "../../kernels/attention/row_table.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Replicas } from "../kv/replicas.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import { PAGE_TOKENS } from "../span.ts";

/** The row tables of a batch whose sequences may have replicas. */
export interface ReplicaTables {
  /** As planned, but every decoded row is appended here too when its sequence has replicas. */
  readonly table: RowBatch["table"];
  /** For sparse layers that read replicas: nothing is beyond what a row sees. Undefined where they exchange states. */
  readonly sparse: RowBatch["table"] | undefined;
}

/**
 * Makes room for the replicas of a batch that is about to run, and uploads its tables: batches before it may have taken the
 * room of its sequences, so that this cannot be done for a whole step at once.
 * @returns undefined when the batch appends and reads as planned
 */
export function uploadReplicaTables(
  model: LoadedModel,
  batch: RowBatch,
): { readonly rowTable: Tensor; readonly sparseTable: Tensor | undefined } | undefined {
  const { replicas, commands, scratch } = model;
  if (replicas === undefined || batch.product === "tiled") return undefined;
  if (batch.replicated) replicas.reserve(batch.pieces.map(({ sequence }) => sequence));
  const { table, sparse } = tablesOf(model, replicas, batch);
  const upload = (name: string, data: RowBatch["table"]) => {
    const tensor = scratch.take(name, "u32", [batch.rows, ROW_WORDS]);
    commands.write(tensor, data);
    return tensor;
  };
  return {
    rowTable: upload("replica row table", table),
    sparseTable: sparse && upload("replica sparse table", sparse),
  };
}

function tablesOf({ share, slice }: LoadedModel, replicas: Replicas, batch: RowBatch): ReplicaTables {
  const table = batch.table.slice();
  for (const { first, rows, from, sequence: { open } } of batch.pieces) {
    const present = replicas.of(open.sequence);
    if (present === undefined) continue;
    for (let i = 0; i < rows; i++) {
      const localRow = present.append(from + i);
      const owner = share.map.owner(open.pageOffset, Math.floor((from + i) / PAGE_TOKENS));
      if (owner !== share.index) setAppendRow(table, first + i, localRow);
    }
  }
  if (!batch.replicated) return { table, sparse: undefined };
  const sparse = table.slice();
  for (let row = 0; row < batch.rows; row++) setVisibleRows(sparse, row, slice.tableWidth * PAGE_TOKENS);
  return { table, sparse };
}
