/**
 * The keys and values that a worker holds of a sequence, read back for tests and debugging: what a group computed can be
 * compared with what one worker computed. Knows pages and their layout; never part of a step.
 */

import { fromHalf } from "../../kernels/half.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { EngineError } from "../errors.ts";
import type { KvSlice } from "./kv_slice.ts";
import type { ModelConfig } from "../model/model_config.ts";
import type { PageShare } from "../page_map.ts";
import type { SequenceState } from "./sequences.ts";
import { PAGE_TOKENS } from "../span.ts";

/** Rows of one layer on one worker; keys are rotated. */
export interface KvRows {
  /** Global position of each row, ascending. */
  readonly positions: Uint32Array;
  /** [rows, kvHeads, headDim]. */
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** What there is to read from. */
export interface InspectedSlice {
  readonly gpu: Gpu;
  readonly config: Pick<ModelConfig, "kvHeads" | "headDim">;
  readonly slice: KvSlice;
  readonly share: PageShare;
}

/**
 * Reads all rows that a worker holds of a sequence in one layer; waits for the GPU.
 * @throws {EngineError} `invalid_step` when there is no such layer
 */
export async function readKvRows(from: InspectedSlice, state: SequenceState, layer: number): Promise<KvRows> {
  const { gpu, slice, share: { map, index } } = from;
  const kv = slice.layers[layer];
  if (kv === undefined) {
    throw new EngineError("invalid_step", `Cannot read layer ${layer}: there are ${slice.layers.length}`);
  }
  const { pageOffset } = state.open;
  const rows = map.localRows(index, pageOffset, state.tokens.length);
  const pages = Math.ceil(rows / PAGE_TOKENS);
  const tableOffset = state.slot * slice.tableWidth * 4;
  const physical = await gpu.readU32({ tensor: slice.pageTable, byteOffset: tableOffset, byteLength: pages * 4 });
  return {
    positions: Uint32Array.from({ length: rows }, (_, row) => map.globalRow(index, pageOffset, row)),
    k: await readPages(from, kv.k, { physical, rows }),
    v: await readPages(from, kv.v, { physical, rows }),
  };
}

/** From f16 [page, kvHead, 64, headDim] to f32 [rows, kvHeads, headDim]. */
async function readPages(
  { gpu, config: { kvHeads, headDim } }: InspectedSlice,
  pool: Tensor,
  { physical, rows }: { readonly physical: Uint32Array; readonly rows: number },
): Promise<Float32Array> {
  const byteLength = kvHeads * PAGE_TOKENS * headDim * 2;
  const found = await gpu.read(
    [...physical].map((page) => ({ tensor: pool, byteOffset: page * byteLength, byteLength })),
  );
  const out = new Float32Array(rows * kvHeads * headDim);
  for (const [i, bytes] of found.entries()) {
    const values = fromHalf(new Uint16Array(bytes.buffer));
    for (let row = i * PAGE_TOKENS; row < Math.min(rows, (i + 1) * PAGE_TOKENS); row++) {
      for (let head = 0; head < kvHeads; head++) {
        const at = (head * PAGE_TOKENS + row % PAGE_TOKENS) * headDim;
        out.set(values.subarray(at, at + headDim), (row * kvHeads + head) * headDim);
      }
    }
  }
  return out;
}
