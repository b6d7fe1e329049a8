/**
 * Queries as the matrix tile reads them: halves, scaled, all heads of a KV head together, so that consecutive rows of a
 * tile (token by token, head by head) are evenly spaced.
 */

import { MAX_HALF } from "../half.ts";
import type { HeadShape } from "./kv_pages.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";

/** What `halfQueries` reads and writes. */
export interface HalfQueries {
  readonly shape: HeadShape;
  readonly rows: number;
  /** f32 `[rows, heads, headDim]` */
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
export function halfQueries(commands: Commands, { shape, rows, q, scale, out }: HalfQueries): void {
  const { heads, headDim } = shape;
  expectTensor("half_queries", q, "f32", [rows, heads, headDim]);
  expectTensor("half_queries", out, "f16", [rows, heads, headDim]);
  const vectors = rows * heads * headDim / 8;
  commands.dispatch(commands.kernel(`half_queries ${Object.values(shape)}`, () => spec(shape)), {
    tensors: [q, out],
    params: { vectors, rows, scale },
    groups: spread(Math.ceil(vectors / THREADS)),
  });
}

function spec({ heads, kvHeads, headDim }: HeadShape): KernelSpec {
  const group = heads / kvHeads;
  const vectors = headDim / 8;
  return {
    bindings: [reads("q", "array<vec4<f32>>"), writes("out", "array<vec4<u32>>")],
    params: [["vectors", "u32"], ["rows", "u32"], ["scale", "f32"]],
    source: /* wgsl */ `
      fn bounded(value: vec4<f32>) -> vec4<f32> {
        return clamp(params.scale * value, vec4<f32>(-${MAX_HALF}.0), vec4<f32>(${MAX_HALF}.0));
      }
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.vectors) { return; }
        let head = (i / ${vectors}u) % ${heads}u;
        let row = i / ${heads * vectors}u;
        let a = bounded(q[2u * i]);
        let b = bounded(q[2u * i + 1u]);
        let to = ((head / ${group}u * params.rows + row) * ${group}u + head % ${group}u) * ${vectors}u + i % ${vectors}u;
        out[to] = vec4<u32>(pack2x16float(a.xy), pack2x16float(a.zw), pack2x16float(b.xy), pack2x16float(b.zw));
      }`,
  };
}
