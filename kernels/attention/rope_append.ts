/**
 * From the fused product of a layer's q, k and v to rotated queries and to rows in the KV pages: bias, per-head norm,
 * rotation, rounding to f16. Knows heads; knows nothing of positions: the host makes the rotations.
 */

import type { HeadShape } from "./kv_pages.ts";
import {
  expectPlaces,
  type HeadPlaces,
  PLACE_PARAMS,
  placeBindings,
  placeHeadsWgsl,
  placeOperands,
  type PlaceVariant,
  placeVariantOf,
  slotsOf,
} from "./place_heads.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { reads } from "../wgsl.ts";

/** RMS norm of every q and k head. */
export interface HeadNorms {
  /** f32 `[headDim]`, for all q heads. */
  readonly q: Tensor;
  /** f32 `[headDim]`, for all k heads. */
  readonly k: Tensor;
  readonly eps: number;
}

/** What `ropeAppend` reads and writes. */
export interface RopeAppend extends HeadPlaces {
  readonly rows: number;
  /** f32 `[rows, (heads + 2·kvHeads)·headDim]`: all q heads, all k heads, all v heads. */
  readonly qkv: Tensor;
  readonly norms?: HeadNorms;
}

/** Dimensions of one thread: four of the first half of a head and the four that they turn against. */
const THREAD_DIMS = 8;
const THREADS = 64;

/**
 * Rotates q and k, writes q, and the rows of k and v that this worker owns into their pages.
 * @throws {GpuError} `invalid_shape`
 */
export function ropeAppend(commands: Commands, { rows, qkv, norms, ...places }: RopeAppend): void {
  const op = "rope_append";
  const { headDim } = places.shape;
  const width = slotsOf(places.shape) * headDim;
  expectTensor(op, qkv, "f32", [rows, width]);
  expectPlaces(op, rows, places);
  if (norms !== undefined) { for (const weight of [norms.q, norms.k]) expectTensor(op, weight, "f32", [headDim]); }
  const options = { ...placeVariantOf(places), norms: norms !== undefined };
  const kernel = commands.kernel(`${op} ${Object.values(options)}`, () => spec(options));
  const { tensors, params } = placeOperands(rows, places);
  commands.dispatch(kernel, {
    tensors: [qkv, ...tensors, ...(norms === undefined ? [] : [norms.q, norms.k])],
    params: { ...params, eps: norms?.eps ?? 0 },
    groups: [Math.ceil(width / THREAD_DIMS / THREADS), rows, 1],
  });
}

interface Options extends PlaceVariant {
  readonly norms: boolean;
}

function spec(options: Options): KernelSpec {
  return {
    bindings: [
      reads("qkv", "array<vec4<f32>>"),
      ...placeBindings(options),
      ...(options.norms ? ["qNorm", "kNorm"].map((name) => reads(name, "array<vec4<f32>>")) : []),
    ],
    params: [...PLACE_PARAMS, ["eps", "f32"]],
    source: source(options),
  };
}

function source(options: Options): string {
  const { heads, headDim, norms } = options;
  const slots = slotsOf(options);
  const pieces = headDim / THREAD_DIMS;
  return /* wgsl */ `
${placeHeadsWgsl(options)}
fn input(row: u32, slot: u32, quad: u32) -> vec4<f32> {
  return biased(slot, quad, qkv[(row * ${slots}u + slot) * ${headDim / 4}u + quad]);
}
${norms ? normWgsl(options) : ""}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let index = group.x * ${THREADS}u + thread;
  let slot = index / ${pieces}u;
  if (slot >= ${slots}u) { return; }
  let row = group.y;
  let low = index % ${pieces}u;
  var a = input(row, slot, low);
  var b = input(row, slot, low + ${pieces}u);
  ${norms ? `if (slot < ${heads + options.kvHeads}u) { norm(row, slot, &a, &b, low); }` : ""}
  placeHeads(row, slot, low, a, b);
}
`;
}

/** Each thread sums the whole head: a few cached loads more, and no barrier. */
function normWgsl({ heads, headDim }: HeadShape): string {
  const pieces = headDim / THREAD_DIMS;
  return /* wgsl */ `
fn norm(row: u32, slot: u32, a: ptr<function, vec4<f32>>, b: ptr<function, vec4<f32>>, low: u32) {
  var squares = vec4<f32>();
  for (var quad = 0u; quad < ${headDim / 4}u; quad++) {
    let value = input(row, slot, quad);
    squares += value * value;
  }
  let factor = inverseSqrt(dot(squares, vec4<f32>(1.0)) / ${headDim}.0 + params.eps);
  let isQ = slot < ${heads}u;
  *a *= factor * select(kNorm[low], qNorm[low], isQ);
  *b *= factor * select(kNorm[low + ${pieces}u], qNorm[low + ${pieces}u], isQ);
}
`;
}
