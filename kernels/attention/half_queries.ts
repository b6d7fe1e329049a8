/**
 * Queries as the matrix tiles read them: halves, scaled, all heads of a KV head together, so that consecutive rows of a tile
 * (token by token, head by head) are evenly spaced. `rope_append.ts` writes them so; here they are made of queries that
 * came from elsewhere.
 */

import type { GpuInfo } from "../gpu.ts";
import type { HeadShape } from "./kv_pages.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { matrixTileFor, rowTilesFor } from "./tile/matrix_tile_plan.ts";
import { BUILTINS, GROUP_INDEX, HALF_PACKING_WGSL, reads, spread, writes } from "../wgsl.ts";

/** What `halfQueries` reads and writes. */
export interface HalfQueries {
  readonly shape: HeadShape;
  readonly rows: number;
  /** f32 `[rows, heads, headDim]` */
  readonly q: Tensor;
  /** As the attention kernels take it. */
  readonly scale: number;
  /** Written: f16, of the shape that `halfQueriesShape` gives. */
  readonly out: Tensor;
}

const THREADS = 256;

/**
 * The shape of the queries that matrix tiles read, for rows of a chunk or for decode rows: f16 `[kvHeads, rows and some that
 * tiles read beyond, heads / kvHeads, headDim]`. Undefined: here such rows are computed by kernels that read f32.
 */
export function halfQueriesShape(
  info: GpuInfo,
  shape: HeadShape,
  { rows, attendedBy }: { readonly rows: number; readonly attendedBy: "chunk" | "row" },
): readonly number[] | undefined {
  const { heads, kvHeads, headDim } = shape;
  const tile = attendedBy === "chunk" ? matrixTileFor(info, shape) : rowTilesFor(info, shape)?.at(-1);
  if (tile === undefined) return undefined;
  const group = heads / kvHeads;
  return [kvHeads, rows + Math.ceil(tile.tileRows / group), group, headDim];
}

/** What queries are multiplied by before rounding: scores are then in units of log2, as the tiles' exponentials are. */
export function halfQueriesScale(scale: number): number {
  return scale * Math.LOG2E;
}

/**
 * Scales queries, rounds them to f16 and puts those of a KV head together. Values beyond ±65504 become ±65504.
 * @throws {GpuError} `invalid_shape`
 */
export function halfQueries(commands: Commands, { shape, rows, q, scale, out }: HalfQueries): void {
  const { heads, headDim } = shape;
  expectTensor("half_queries", q, "f32", [rows, heads, headDim]);
  expectTensor("half_queries", out, "f16", [rows, heads, headDim]);
  const vectors = rows * heads * headDim / 8;
  commands.dispatch(commands.kernel(`half_queries ${Object.values(shape)}`, () => spec(shape)), {
    tensors: [q, out],
    params: { vectors, queryRows: out.shape[1] ?? rows, scale: halfQueriesScale(scale) },
    groups: spread(Math.ceil(vectors / THREADS)),
  });
}

function spec({ heads, kvHeads, headDim }: HeadShape): KernelSpec {
  const group = heads / kvHeads;
  const vectors = headDim / 8;
  return {
    bindings: [reads("q", "array<vec4<f32>>"), writes("out", "array<vec4<u32>>")],
    params: [["vectors", "u32"], ["queryRows", "u32"], ["scale", "f32"]],
    source: /* wgsl */ `
      ${HALF_PACKING_WGSL}
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.vectors) { return; }
        let head = (i / ${vectors}u) % ${heads}u;
        let row = i / ${heads * vectors}u;
        let a = bounded(params.scale * q[2u * i]);
        let b = bounded(params.scale * q[2u * i + 1u]);
        let to = (head / ${group}u * params.queryRows + row) * ${group}u + head % ${group}u;
        out[to * ${vectors}u + i % ${vectors}u] = packed(a, b);
      }`,
  };
}
