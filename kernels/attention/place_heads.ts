/**
 * Where the heads of a row go: queries, rotated, to the attention; keys, rotated, and values, rounded to f16, to the pages
 * of the sequence. Kernels that hold a row's q, k and v, as numbers in memory or as sums of a product, place them by this
 * WGSL: bits are the same whichever does.
 */

import { halfQueriesScale } from "./half_queries.ts";
import { expectPagedKv, type HeadShape, kvAddressWgsl, type PagedKv } from "./kv_pages.ts";
import type { BindingSpec, Dispatch, ParamField } from "../pipeline.ts";
import { ROW_TABLE_WGSL, ROW_WORDS } from "./row_table.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { HALF_PACKING_WGSL, reads, writes } from "../wgsl.ts";

/** What a row's heads are placed by, and where. */
export interface HeadPlaces extends PagedKv {
  readonly shape: HeadShape;
  /** f32 `[(heads + 2·kvHeads)·headDim]`, added before anything else. */
  readonly bias?: Tensor;
  /** f32 `[rows, headDim/2, 2]`: cosine and sine for each pair (i, i + headDim/2) of a row. */
  readonly rotations: Tensor;
  /** u32 `[rows, 8]`, see `row_table.ts`. */
  readonly rowTable: Tensor;
  /** Written: f32 `[rows, heads, headDim]`, rotated, not scaled; or f16 as `halfQueriesShape` says, rotated and scaled. */
  readonly q: Tensor;
  /** Of the attention; for f16 queries only. */
  readonly scale: number;
}

/** What distinguishes kernels that place heads. */
export interface PlaceVariant extends HeadShape {
  readonly bias: boolean;
  /** Whether q is f16. */
  readonly halves: boolean;
}

/**
 * Checks what `rows` rows are placed by.
 * @throws {GpuError} `invalid_shape`
 */
export function expectPlaces(op: string, rows: number, places: HeadPlaces): void {
  const { shape, rotations, rowTable, q, bias } = places;
  const { heads, headDim } = shape;
  expectTensor(op, rotations, "f32", [rows, headDim / 2, 2]);
  expectTensor(op, rowTable, "u32", [rows, ROW_WORDS]);
  expectTensor(op, q, q.dtype === "f16" ? "f16" : "f32", [rows, heads, headDim]);
  expectPagedKv(op, shape, places);
  if (bias !== undefined) expectTensor(op, bias, "f32", [slotsOf(shape) * headDim]);
}

/** Heads of a row: of queries, keys and values, in this order. */
export function slotsOf({ heads, kvHeads }: Pick<HeadShape, "heads" | "kvHeads">): number {
  return heads + 2 * kvHeads;
}

/** The variant that places take. */
export function placeVariantOf({ shape, bias, q }: HeadPlaces): PlaceVariant {
  const { heads, kvHeads, headDim } = shape;
  return { heads, kvHeads, headDim, bias: bias !== undefined, halves: q.dtype === "f16" };
}

/** What `placeHeadsWgsl` binds. */
export function placeBindings({ bias, halves }: PlaceVariant): readonly BindingSpec[] {
  return [
    reads("rotations", "array<vec4<f32>>"),
    reads("rowTable", "array<vec4<u32>>"),
    reads("pageTable", "array<u32>"),
    writes("q", halves ? "array<vec2<u32>>" : "array<vec4<f32>>"),
    writes("k", "array<vec2<u32>>"),
    writes("v", "array<vec2<u32>>"),
    ...(bias ? [reads("bias", "array<vec4<f32>>")] : []),
  ];
}

/** What it takes as parameters. */
export const PLACE_PARAMS: readonly ParamField[] = [["maxPages", "u32"], ["queryRows", "u32"], ["scale", "f32"]];

/** Bindings and parameters of `rows` rows. */
export function placeOperands(rows: number, places: HeadPlaces): Pick<Dispatch, "tensors" | "params"> {
  const { bias, rotations, rowTable, kv, pageTable, maxPages, q, scale } = places;
  return {
    tensors: [rotations, rowTable, pageTable, q, kv.k, kv.v, ...(bias === undefined ? [] : [bias])],
    params: { maxPages, queryRows: q.dtype === "f16" ? q.shape[1] ?? rows : 0, scale: halfQueriesScale(scale) },
  };
}

/**
 * WGSL of `placeHeads(row, slot, low, a, b)`: rotates and stores four dimensions of the first half of a head, `a`, the
 * `low`-th such four, and the four that they turn against, `b`. And of `biased(slot, quad, value)`, which comes before it.
 */
export function placeHeadsWgsl(variant: PlaceVariant): string {
  const { heads, kvHeads, headDim, bias } = variant;
  const [quads, pieces] = [headDim / 4, headDim / 8];
  return /* wgsl */ `
${ROW_TABLE_WGSL}
${kvAddressWgsl(variant, 4)}
${HALF_PACKING_WGSL}
fn placedHalves(value: vec4<f32>) -> vec2<u32> {
  let near = bounded(value);
  return vec2<u32>(pack2x16float(near.xy), pack2x16float(near.zw));
}
fn biased(slot: u32, quad: u32, value: vec4<f32>) -> vec4<f32> {
  return value${bias ? ` + bias[slot * ${quads}u + quad]` : ""};
}
fn placeHeads(row: u32, slot: u32, low: u32, first: vec4<f32>, second: vec4<f32>) {
  var a = first;
  var b = second;
  let high = low + ${pieces}u;
  if (slot < ${heads + kvHeads}u) {
    let early = rotations[(row * ${pieces}u + low) * 2u];
    let late = rotations[(row * ${pieces}u + low) * 2u + 1u];
    let cosine = vec4<f32>(early.xz, late.xz);
    let sine = vec4<f32>(early.yw, late.yw);
    // Fused explicitly: otherwise each compiler may choose which of the products it does not round.
    a = fma(first, cosine, -(second * sine));
    b = fma(second, cosine, first * sine);
  }
  if (slot < ${heads}u) {
    ${storeQueryWgsl(variant)}
    return;
  }
  ${appendWgsl(variant)}
}
`;
}

/** Keys or values, to the row's place in the pages where this worker holds it. */
function appendWgsl({ heads, kvHeads }: PlaceVariant): string {
  return /* wgsl */ `
  let entry = readRow(row);
  if (entry.appendRow == APPEND_NOWHERE) { return; }
  let base = kvAddress(entry.sequenceSlot, entry.appendRow, (slot - ${heads}u) % ${kvHeads}u);
  if (slot < ${heads + kvHeads}u) {
    k[base + low] = placedHalves(a);
    k[base + high] = placedHalves(b);
  } else {
    v[base + low] = placedHalves(a);
    v[base + high] = placedHalves(b);
  }`;
}

function storeQueryWgsl({ heads, kvHeads, headDim, halves }: PlaceVariant): string {
  const group = heads / kvHeads;
  const store = (place: string, value: (name: string) => string) =>
    `let to = (${place}) * ${headDim / 4}u; q[to + low] = ${value("a")}; q[to + high] = ${value("b")};`;
  if (!halves) return store(`row * ${heads}u + slot`, (name) => name);
  const place = `(slot / ${group}u * params.queryRows + row) * ${group}u + slot % ${group}u`;
  return store(place, (name) => `placedHalves(params.scale * ${name})`);
}
