/**
 * Keys and values of single rows on their way between the slices of a group: out of the pages of a layer into a transit
 * tensor, and from there into the pages of another worker. Knows pages and rows; knows nothing of who wants them, or why.
 */

import { GpuError } from "../errors.ts";
import { expectPagedKv, type HeadShape, kvAddressWgsl, type PagedKv } from "./kv_pages.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";
import type { RowRange } from "./row_blocks.ts";

/** Words of an entry: slot of the sequence, KV head, local row, and one that is unused. */
export const REPLICA_ENTRY_WORDS = 4;

/** What `copyReplicaRows` reads and writes. */
export interface ReplicaRows extends PagedKv {
  readonly shape: HeadShape;
  /** `pack`: from the pages into transit; `unpack`: from transit into the pages. */
  readonly direction: "pack" | "unpack";
  /** Which entries are copied. */
  readonly range: RowRange;
  /** u32 `[entries, 4]`: the row of one KV head that an entry stands for; its local row is in `pageTable`'s terms. */
  readonly entries: Tensor;
  /** f16 halves packed in u32 `[entries, layers, 2, headDim / 2]`: key, then value. */
  readonly transit: Tensor;
  /** Layers of `transit`, and which of them this is. */
  readonly layers: number;
  readonly layer: number;
}

const THREADS = 64;

/**
 * Copies the keys and values of one layer. No bit changes.
 * @throws {GpuError} `invalid_shape`
 */
export function copyReplicaRows(commands: Commands, args: ReplicaRows): void {
  const { shape, direction, range, entries, transit, layers, layer, kv, pageTable, maxPages } = args;
  const op = "replica_rows";
  const end = range.first + range.rows;
  expectPagedKv(op, shape, args);
  expectTensor(op, entries, "u32", [end, REPLICA_ENTRY_WORDS]);
  expectTensor(op, transit, "u32", [end, layers, 2, shape.headDim / 2]);
  if (layer >= layers) {
    throw new GpuError("invalid_shape", `Cannot dispatch ${op}: layer ${layer} is not below ${layers}`);
  }
  const { kvHeads, headDim } = shape;
  const kernel = commands.kernel(`${op} ${direction} ${kvHeads}x${headDim}`, () => spec(shape, direction));
  commands.dispatch(kernel, {
    tensors: [kv.k, kv.v, pageTable, entries, transit],
    params: { first: range.first, rows: range.rows, layers, layer, maxPages },
    groups: spread(Math.ceil(range.rows * lanesOf(shape) / THREADS)),
  });
}

/** Threads of one entry: 16 bytes each, of the key and then of the value. */
function lanesOf({ headDim }: HeadShape): number {
  return headDim / 4;
}

function spec(shape: HeadShape, direction: ReplicaRows["direction"]): KernelSpec {
  const isPack = direction === "pack";
  const [pages, transit] = isPack ? [reads, writes] : [writes, reads];
  const pieces = shape.headDim / 8;
  const copy = (pool: string) => isPack ? `transit[at] = ${pool}[row];` : `${pool}[row] = transit[at];`;
  return {
    bindings: [
      pages("k", "array<vec4<u32>>"),
      pages("v", "array<vec4<u32>>"),
      reads("pageTable", "array<u32>"),
      reads("entries", "array<vec4<u32>>"),
      transit("transit", "array<vec4<u32>>"),
    ],
    params: [["first", "u32"], ["rows", "u32"], ["layers", "u32"], ["layer", "u32"], ["maxPages", "u32"]],
    source: /* wgsl */ `
${kvAddressWgsl(shape, 8)}
@compute @workgroup_size(${THREADS})
fn main(${BUILTINS}) {
  let index = (${GROUP_INDEX}) * ${THREADS}u + t;
  if (index >= params.rows * ${lanesOf(shape)}u) { return; }
  let number = params.first + index / ${lanesOf(shape)}u;
  let lane = index % ${lanesOf(shape)}u;
  let entry = entries[number];
  let row = kvAddress(entry.x, entry.z, entry.y) + lane % ${pieces}u;
  let at = (number * params.layers + params.layer) * ${lanesOf(shape)}u + lane;
  if (lane < ${pieces}u) { ${copy("k")} } else { ${copy("v")} }
}
`,
  };
}
