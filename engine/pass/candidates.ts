/** The best positions that a worker found in its own slice, read back for the choice of the group. */

import { f32Of, u32Of } from "../../kernels/read_back.ts";
import type { Candidates, PositionList } from "../exchange.ts";
import type { Pass } from "./pass.ts";
import { candidateValuesOf, chosenOf, isSparse, rowsOf, selectionOf, type SparseRun } from "./selection_buffers.ts";

/** What the GPU chose for a run: [rows, sets, stride] each. */
interface ChosenOfRun {
  readonly run: SparseRun;
  readonly positions: Uint32Array;
  readonly values: Float32Array;
  readonly sets: number;
  readonly stride: number;
}

/** Reads the candidates of all sparse rows of a batch; waits for the GPU. */
export async function readCandidates(pass: Pass): Promise<Candidates> {
  const { model: { share: { map, index }, replicas }, batch } = pass;
  const rows: Candidates["rows"][number][] = [];
  const lists: PositionList[] = [];
  for (const { run, positions, values, sets, stride } of await readRuns(pass)) {
    for (const [r, { sequence: { open }, position }] of rowsOf(batch, run).entries()) {
      const { budget, coverage } = open.sparse;
      const most = Math.min(budget, map.localRows(index, open.pageOffset, position + 1));
      const held = batch.replicated ? replicas?.of(open.sequence)?.digest : undefined;
      rows.push({
        sequence: open.sequence,
        position,
        budget,
        sets,
        ...(coverage !== undefined && { coverage }),
        ...(held !== undefined && { replicas: held }),
      });
      for (let set = 0; set < sets; set++) {
        const at = (r * sets + set) * stride;
        const local = chosenOf(positions.subarray(at, at + most));
        lists.push({
          positions: local.map((row) => map.globalRow(index, open.pageOffset, row)),
          values: values.slice(at, at + local.length),
        });
      }
    }
  }
  return { rows, lists };
}

/** One read-back for all runs: each waits for the queue. */
async function readRuns({ model, batch }: Pass): Promise<ChosenOfRun[]> {
  const { commands } = model;
  const runs = batch.runs.filter(isSparse).map((run) => ({ run, ...selectionOf(model, run) }));
  const sizeOf = ({ run, sets, stride }: typeof runs[number]) => run.rows * sets * stride * 4;
  const bytes = await commands.read([
    ...runs.map((selected) => ({ tensor: selected.positions, byteLength: sizeOf(selected) })),
    ...runs.map((selected) => ({ tensor: candidateValuesOf(model, selected.run), byteLength: sizeOf(selected) })),
  ]);
  return runs.map(({ run, sets, stride }, i) => ({
    run,
    positions: u32Of(bytes[i]),
    values: f32Of(bytes[runs.length + i]),
    sets,
    stride,
  }));
}
