/**
 * Queries as the matrix tile reads them: halves, scaled, all heads of a KV head together, so that consecutive rows of a
 * tile (token by token, head by head) are evenly spaced.
 */

import type { HeadShape } from "./kv_pages.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, HALF_PACKING_WGSL, reads, spread, writes } from "../wgsl.ts";

/** What `halfQueries` reads and writes. */
export interface HalfQueries {
  readonly shape: HeadShape;
  /** The rows to convert: [firstRow, firstRow + rows) of `q`. */
  readonly firstRow: number;
  readonly rows: number;
  /** f32 `[all rows, heads, headDim]` */
  readonly q: Tensor;
  /** Multiplies every value before rounding. */
  readonly scale: number;
  /** Written: f16 `[kvHeads, rows, heads / kvHeads, headDim]` */
  readonly out: Tensor;
}

const THREADS = 256;

/**
 * Scales queries, rounds them to f16 and puts those of a KV head together. Values beyond ±65504 become ±65504.
 * @throws {GpuError} `invalid_shape`
 */
export function halfQueries(commands: Commands, { shape, firstRow, rows, q, scale, out }: HalfQueries): void {
  const { heads, headDim } = shape;
  expectTensor("half_queries", q, "f32", [firstRow + rows, heads, headDim]);
  expectTensor("half_queries", out, "f16", [rows, heads, headDim]);
  const vectors = rows * heads * headDim / 8;
  commands.dispatch(commands.kernel(`half_queries ${Object.values(shape)}`, () => spec(shape)), {
    tensors: [q, out],
    params: { vectors, firstRow, rows, scale },
    groups: spread(Math.ceil(vectors / THREADS)),
  });
}

function spec({ heads, kvHeads, headDim }: HeadShape): KernelSpec {
  const group = heads / kvHeads;
  const vectors = headDim / 8;
  return {
    bindings: [reads("q", "array<vec4<f32>>"), writes("out", "array<vec4<u32>>")],
    params: [["vectors", "u32"], ["firstRow", "u32"], ["rows", "u32"], ["scale", "f32"]],
    source: /* wgsl */ `
      ${HALF_PACKING_WGSL}
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.vectors) { return; }
        let head = (i / ${vectors}u) % ${heads}u;
        let row = i / ${heads * vectors}u;
        let at = 2u * (params.firstRow * ${heads * vectors}u + i);
        let a = bounded(params.scale * q[at]);
        let b = bounded(params.scale * q[at + 1u]);
        let to = ((head / ${group}u * params.rows + row) * ${group}u + head % ${group}u) * ${vectors}u + i % ${vectors}u;
        out[to] = packed(a, b);
      }`,
  };
}
