/**
 * From the fused product of a layer's q, k and v to rotated queries and to rows in the KV pages: bias, per-head norm,
 * rotation, rounding to f16. Knows heads and pages; knows nothing of positions: the host makes the rotations.
 */

import { halfQueriesScale } from "./half_queries.ts";
import { expectPagedKv, type HeadShape, kvAddressWgsl, type PagedKv } from "./kv_pages.ts";
import type { BindingSpec, Commands, KernelSpec } from "../pipeline.ts";
import { ROW_TABLE_WGSL, ROW_WORDS } from "./row_table.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { HALF_PACKING_WGSL, reads, writes } from "../wgsl.ts";

/** RMS norm of every q and k head. */
export interface HeadNorms {
  /** f32 `[headDim]`, for all q heads. */
  readonly q: Tensor;
  /** f32 `[headDim]`, for all k heads. */
  readonly k: Tensor;
  readonly eps: number;
}

/** What `ropeAppend` reads and writes. */
export interface RopeAppend extends PagedKv {
  readonly shape: HeadShape;
  readonly rows: number;
  /** f32 `[rows, (heads + 2·kvHeads)·headDim]`: all q heads, all k heads, all v heads. */
  readonly qkv: Tensor;
  /** f32 `[(heads + 2·kvHeads)·headDim]`, added before anything else. */
  readonly bias?: Tensor;
  readonly norms?: HeadNorms;
  /** f32 `[rows, headDim/2, 2]`: cosine and sine for each pair (i, i + headDim/2) of a row. */
  readonly rotations: Tensor;
  /** u32 `[rows, 8]`, see `row_table.ts`. */
  readonly rowTable: Tensor;
  /** Written: f32 `[rows, heads, headDim]`, rotated, not scaled; or f16 as `halfQueriesShape` says, rotated and scaled. */
  readonly q: Tensor;
  /** Of the attention; for f16 queries only. */
  readonly scale: number;
}

/** Dimensions of one thread: four of the first half of a head and the four that they turn against. */
const THREAD_DIMS = 8;
const THREADS = 64;

/**
 * Rotates q and k, writes q, and the rows of k and v that this worker owns into their pages.
 * @throws {GpuError} `invalid_shape`
 */
export function ropeAppend(commands: Commands, args: RopeAppend): void {
  const { shape, rows, qkv, bias, norms, rotations, rowTable, kv, pageTable, maxPages, q, scale } = args;
  const { heads, kvHeads, headDim } = shape;
  const op = "rope_append";
  const slots = heads + 2 * kvHeads;
  expectTensor(op, qkv, "f32", [rows, slots * headDim]);
  expectTensor(op, rotations, "f32", [rows, headDim / 2, 2]);
  expectTensor(op, rowTable, "u32", [rows, ROW_WORDS]);
  const halves = q.dtype === "f16";
  expectTensor(op, q, halves ? "f16" : "f32", [rows, heads, headDim]);
  expectPagedKv(op, shape, args);
  if (bias !== undefined) expectTensor(op, bias, "f32", [slots * headDim]);
  if (norms !== undefined) { for (const weight of [norms.q, norms.k]) expectTensor(op, weight, "f32", [headDim]); }
  const options = { ...shape, bias: bias !== undefined, norms: norms !== undefined, halves };
  const kernel = commands.kernel(`${op} ${Object.values(options)}`, () => spec(options));
  commands.dispatch(kernel, {
    tensors: [
      ...[qkv, rotations, rowTable, pageTable, q, kv.k, kv.v],
      ...(bias === undefined ? [] : [bias]),
      ...(norms === undefined ? [] : [norms.q, norms.k]),
    ],
    params: {
      maxPages,
      queryRows: halves ? q.shape[1] ?? rows : 0,
      eps: norms?.eps ?? 0,
      scale: halfQueriesScale(scale),
    },
    groups: [Math.ceil((slots * headDim) / THREAD_DIMS / THREADS), rows, 1],
  });
}

interface Options extends HeadShape {
  readonly bias: boolean;
  readonly norms: boolean;
  /** Whether q is f16. */
  readonly halves: boolean;
}

function spec(options: Options): KernelSpec {
  const floats = (name: string): BindingSpec => reads(name, "array<vec4<f32>>");
  return {
    bindings: [
      floats("qkv"),
      floats("rotations"),
      reads("rowTable", "array<vec4<u32>>"),
      reads("pageTable", "array<u32>"),
      writes("q", options.halves ? "array<vec2<u32>>" : "array<vec4<f32>>"),
      writes("k", "array<vec2<u32>>"),
      writes("v", "array<vec2<u32>>"),
      ...(options.bias ? [floats("bias")] : []),
      ...(options.norms ? [floats("qNorm"), floats("kNorm")] : []),
    ],
    params: [["maxPages", "u32"], ["queryRows", "u32"], ["eps", "f32"], ["scale", "f32"]],
    source: source(options),
  };
}

function source(options: Options): string {
  const { heads, kvHeads, headDim } = options;
  const slots = heads + 2 * kvHeads;
  const quads = headDim / 4;
  const pieces = headDim / THREAD_DIMS;
  return /* wgsl */ `
${ROW_TABLE_WGSL}
${kvAddressWgsl(options, 4)}
fn input(row: u32, slot: u32, quad: u32) -> vec4<f32> {
  let value = qkv[(row * ${slots}u + slot) * ${quads}u + quad];
  return value${options.bias ? ` + bias[slot * ${quads}u + quad]` : ""};
}
${HALF_PACKING_WGSL}
fn halves(value: vec4<f32>) -> vec2<u32> {
  let near = bounded(value);
  return vec2<u32>(pack2x16float(near.xy), pack2x16float(near.zw));
}
${options.norms ? normWgsl(heads, headDim) : ""}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let index = group.x * ${THREADS}u + thread;
  let slot = index / ${pieces}u;
  if (slot >= ${slots}u) { return; }
  let row = group.y;
  let low = index % ${pieces}u;
  let high = low + ${pieces}u;
  var a = input(row, slot, low);
  var b = input(row, slot, high);
  if (slot < ${heads + kvHeads}u) {
    ${options.norms ? `norm(row, slot, &a, &b, low);` : ""}
    let first = rotations[(row * ${pieces}u + low) * 2u];
    let second = rotations[(row * ${pieces}u + low) * 2u + 1u];
    let cosine = vec4<f32>(first.xz, second.xz);
    let sine = vec4<f32>(first.yw, second.yw);
    let turned = a * cosine - b * sine;
    b = b * cosine + a * sine;
    a = turned;
  }
  if (slot < ${heads}u) {
    ${storeQueryWgsl(options)}
    return;
  }
  let entry = readRow(row);
  if (entry.appendRow == APPEND_NOWHERE) { return; }
  let base = kvAddress(entry.sequenceSlot, entry.appendRow, (slot - ${heads}u) % ${kvHeads}u);
  if (slot < ${heads + kvHeads}u) {
    k[base + low] = halves(a);
    k[base + high] = halves(b);
  } else {
    v[base + low] = halves(a);
    v[base + high] = halves(b);
  }
}
`;
}

function storeQueryWgsl({ heads, kvHeads, headDim, halves }: Options): string {
  const group = heads / kvHeads;
  const store = (place: string, value: (name: string) => string) =>
    `let to = (${place}) * ${headDim / 4}u; q[to + low] = ${value("a")}; q[to + high] = ${value("b")};`;
  if (!halves) return store(`row * ${heads}u + slot`, (name) => name);
  const place = `(slot / ${group}u * params.queryRows + row) * ${group}u + slot % ${group}u`;
  return store(place, (name) => `halves(params.scale * ${name})`);
}

/** Each thread sums the whole head: a few cached loads more, and no barrier. */
function normWgsl(heads: number, headDim: number): string {
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
