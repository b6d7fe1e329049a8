/** Calls of decode attention whose rows follow each other in blocks, and the bits of their states. */

import { type DecodeAttention, decodeAttention } from "../../../kernels/attention/decode_attention.ts";
import { scratchShape } from "../../../kernels/attention/split/split_scratch.ts";
import type { HeadShape } from "../../../kernels/attention/kv_pages.ts";
import type { RowRange } from "../../../kernels/attention/row_blocks.ts";
import type { TableRow } from "../../../kernels/attention/row_table.ts";
import type { GpuFixture } from "../../support/gpu_fixture.ts";
import { type KvFixture, kvFixture, tableRow, uploadRows } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";
import { consecutiveRows } from "./attention_cases.ts";

/** Where blocks of 1 … 9 rows begin: at and around the borders of splits, and at the start, where some rows see nothing. */
const STARTS = [300, 254, 509, 255, 252, 507, 256, 1095, -2] as const;
const SEQUENCES = 3;
/** KV rows of each sequence, unless told otherwise. */
export const LENGTH = 1110;

/** Rows, and which of them follow each other. */
export interface BlockCall {
  readonly rows: readonly TableRow[];
  readonly blocks: readonly RowRange[];
}

/** Spans of several sequences, each followed by single rows of the others. */
export function mixed(window: number | undefined): BlockCall {
  const rows: TableRow[] = [];
  const blocks: RowRange[] = [];
  for (const [i, from] of STARTS.entries()) {
    const span = consecutiveRows({ from, rows: i + 1, window }).map((row) => ({
      ...row,
      sequenceSlot: i % SEQUENCES,
      kvLimit: Math.max(0, row.kvLimit),
    }));
    blocks.push({ first: rows.length, rows: span.length });
    rows.push(...span);
    for (const ahead of [1, 2].slice(i % 3)) {
      rows.push(tableRow({ sequenceSlot: (i + ahead) % SEQUENCES, kvLimit: 1 + (i * 257) % LENGTH }));
    }
  }
  return { rows, blocks };
}

/** A call without blocks, its operands on the host, and the bits of its states however it is made. */
export interface PreparedBlocks {
  readonly args: DecodeAttention;
  readonly kv: KvFixture;
  readonly q: Float32Array<ArrayBuffer>;
  readonly states: (how: Partial<DecodeAttention>) => Promise<StateBits>;
}

/** Both parts of the states of all rows, as words. */
interface StateBits {
  readonly o: Uint32Array<ArrayBuffer>;
  readonly lse: Uint32Array<ArrayBuffer>;
}

/** What the arguments of a call are made from. */
export interface DecodeOperands {
  readonly shape: HeadShape;
  readonly rows: readonly TableRow[];
  readonly kv: KvFixture;
  readonly q: Float32Array<ArrayBuffer>;
  readonly longest: number;
  /** Rows that scratch holds. @default all */
  readonly scratchRows?: number | undefined;
}

/** A dense call of all rows. */
export function decodeArgs(
  fixture: GpuFixture,
  { shape, rows, kv, q, longest, scratchRows = rows.length }: DecodeOperands,
): DecodeAttention {
  const { heads, headDim } = shape;
  const sizes = scratchShape(shape, { rows: scratchRows, longest, selected: longest });
  return {
    shape,
    ...kv.paged,
    firstRow: 0,
    rows: rows.length,
    q: fixture.upload("f32", q, [rows.length, heads, headDim]),
    rowTable: uploadRows(fixture, rows),
    longest,
    scale: 1 / Math.sqrt(headDim),
    scratch: { o: fixture.zeros("f32", sizes.o), lse: fixture.zeros("f32", sizes.lse) },
    out: { o: fixture.zeros("f32", [rows.length, heads, headDim]), lse: fixture.zeros("f32", [rows.length, heads]) },
  };
}

/** The arguments of a call, without blocks; `states` gives their result. */
export function prepareBlocks(
  fixture: GpuFixture,
  shape: HeadShape,
  rows: readonly TableRow[],
  { scratchRows = rows.length, length = LENGTH }: { readonly scratchRows?: number; readonly length?: number } = {},
): PreparedBlocks {
  const { heads, headDim } = shape;
  const kv = kvFixture(fixture, shape, { slots: SEQUENCES, length, seed: 3 });
  const q = new Random(4).normals(rows.length * heads * headDim);
  const args = decodeArgs(fixture, { shape, rows, kv, q, longest: length, scratchRows });
  const { out } = args;
  const wiped = { o: new Float32Array(out.o.byteLength / 4).fill(NaN), lse: new Float32Array(out.lse.byteLength / 4) };
  const states = async (how: Partial<DecodeAttention>) => {
    fixture.gpu.write(out.o, wiped.o);
    fixture.gpu.write(out.lse, wiped.lse.fill(NaN));
    decodeAttention(fixture.commands, { ...args, ...how });
    const bits = (floats: Float32Array<ArrayBuffer>) => new Uint32Array(floats.buffer);
    return { o: bits(await fixture.floats(out.o)), lse: bits(await fixture.floats(out.lse)) };
  };
  return { args, kv, q, states };
}
