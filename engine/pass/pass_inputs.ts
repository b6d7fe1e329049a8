/** What a batch brings onto the GPU: its tokens, their rotations, and the tables of what its rows see and append. */

import { ROW_WORDS } from "../../kernels/attention/row_table.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { type RopeFrequencies, rotations } from "../model/rope.ts";
import type { RowBatch } from "../row_batch.ts";
import { type OwnRange, ownRanges } from "./row_ranges.ts";
import { roomFor, type StatePart, type StepState } from "./step_state.ts";

/** The rows that this worker computes; split rows lie back to back, range by range. */
type ComputedRows = Pick<RowBatch, "tokens" | "positions" | "table">;

/** The inputs of a batch among the parts of the step's state. */
export interface PlacedInputs {
  /** Rows that this worker computes. */
  readonly computed: number;
  /** Where the first of them lies, in words: it distinguishes the layouts of batches of the same shape. */
  readonly at: number;
  readonly tokens: StatePart;
  readonly rotations: StatePart;
  readonly computedTable: StatePart;
  readonly rowTable: StatePart;
  readonly localRotations: StatePart;
  readonly localTable: StatePart;
}

/** The same on the GPU. */
export interface PassInputs {
  readonly computed: number;
  /** u32 [computed] */
  readonly tokens: Tensor;
  /** f32 [computed, headDim / 2, 2] */
  readonly rotations: Tensor;
  /** u32 [computed, 8]: of the computed rows, for appending. */
  readonly computedTable: Tensor;
  /** u32 [rows of the batch, 8]: of all rows, for attending. */
  readonly rowTable: Tensor;
  /** The same in layers with a window of their own; where there are none, those of the others. */
  readonly localRotations: Tensor;
  readonly localTable: Tensor;
}

/** Adds the inputs of a batch to the state of its step. */
export function placeInputs(
  state: StepState,
  { frequencies, localFrequencies, share, config }: Pick<
    LoadedModel,
    "frequencies" | "localFrequencies" | "share" | "config"
  >,
  batch: RowBatch,
): PlacedInputs {
  const own = batch.ranges === undefined ? batch : pickRows(batch, ownRanges(batch.ranges, share.index));
  const computed = own.tokens.length;
  const room = roomFor(computed);
  const at = state.words;
  const rowTable = state.add("row table", {
    data: batch.table,
    shape: [batch.rows, ROW_WORDS],
    room: roomFor(batch.rows) * ROW_WORDS,
  });
  const rotated = (label: string, of: RopeFrequencies) =>
    state.add(label, { data: rotations(of, own.positions), room: room * config.headDim });
  const everywhere = rotated("rotations", frequencies);
  return {
    computed,
    at,
    rowTable,
    localTable: batch.localTable === undefined ? rowTable : state.add("local row table", {
      data: batch.localTable,
      shape: [batch.rows, ROW_WORDS],
      room: roomFor(batch.rows) * ROW_WORDS,
    }),
    rotations: everywhere,
    localRotations: localFrequencies === undefined ? everywhere : rotated("local rotations", localFrequencies),
    computedTable: batch.ranges === undefined
      ? rowTable
      : state.add("own row table", { data: own.table, shape: [computed, ROW_WORDS], room: room * ROW_WORDS }),
    tokens: state.add("tokens", { data: own.tokens, room }),
  };
}

/** The inputs as tensors, once the state is uploaded. */
export function inputsOf(
  state: StepState,
  { computed, tokens, rotations, computedTable, rowTable, localRotations, localTable }: PlacedInputs,
): PassInputs {
  return {
    computed,
    tokens: state.tensor(tokens),
    rotations: state.tensor(rotations),
    computedTable: state.tensor(computedTable),
    rowTable: state.tensor(rowTable),
    localRotations: state.tensor(localRotations),
    localTable: state.tensor(localTable),
  };
}

function pickRows({ tokens, positions, table }: ComputedRows, ranges: readonly OwnRange[]): ComputedRows {
  const count = ranges.reduce((sum, { rows }) => sum + rows, 0);
  const picked = {
    tokens: new Uint32Array(count),
    positions: new Uint32Array(count),
    table: new Uint32Array(count * ROW_WORDS),
  };
  for (const { first, rows, at } of ranges) {
    picked.tokens.set(tokens.subarray(first, first + rows), at);
    picked.positions.set(positions.subarray(first, first + rows), at);
    picked.table.set(table.subarray(first * ROW_WORDS, (first + rows) * ROW_WORDS), at * ROW_WORDS);
  }
  return picked;
}
