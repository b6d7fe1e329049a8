/**
 * Where keys and values lie: pages of 64 consecutive local rows, found through a table of pages by sequence.
 * Knows shapes and addresses; knows nothing of attention or of who owns a page.
 */

import { GpuError } from "../errors.ts";
import type { BindingSpec } from "../kernel_cache.ts";
import { type RowForm, writesRows } from "../rows.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { reads, writes } from "../wgsl.ts";

/** Local rows of one page. */
export const PAGE_ROWS = 64;

/** Heads of an attention layer; query heads are a multiple of KV heads, `headDim` a multiple of 8. */
export interface HeadShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Keys (rotated) and values of one layer, f16 `[pages, kvHeads, 64, headDim]` each. */
export interface KvPool {
  readonly k: Tensor;
  readonly v: Tensor;
}

/** A layer's pool and the way into it. */
export interface PagedKv {
  readonly kv: KvPool;
  /** u32 `[slots, maxPages]`: the physical page that holds a sequence's local rows [64·i, 64·i + 64). */
  readonly pageTable: Tensor;
  readonly maxPages: number;
}

/** A state of attention: its output f32 `[…, heads, headDim]` and natural log-sum-exp f32 `[…, heads]`. */
export interface AttentionState {
  readonly o: Tensor;
  readonly lse: Tensor;
}

/** Raw scaled logits q·k · scale of each row, for the choice of positions. */
export interface ScoreOutput {
  /** f32 `[rows of the call, heads, stride]`; written at the visible local rows only. */
  readonly scores: Tensor;
  /** At least `longest`, counted from local row 0. */
  readonly stride: number;
}

/** What kernels that attend to pages bind after their queries. */
export const PAGED_KV_BINDINGS: readonly BindingSpec[] = [
  reads("k", "array<vec4<u32>>"),
  reads("v", "array<vec4<u32>>"),
  reads("pageTable", "array<u32>"),
  reads("rowTable", "array<vec4<u32>>"),
];

/** Their results: a state a row and head. */
export const STATE_BINDINGS: readonly BindingSpec[] = stateBindings("f32");

/**
 * The form in which kernels store outputs of rows that they see whole; `parts`: they leave them to a merge, as they do those of rows
 * that they see a part of.
 */
export type StateForm = RowForm | "parts";

/** The same with outputs as rows of a form; none where all are left to a merge. */
export function stateBindings(form: StateForm): readonly BindingSpec[] {
  return form === "parts" ? [] : [writesRows("outO", form), writes("outLse", "array<f32>")];
}

/** The same for a state a split, where a row has several. */
export const PART_BINDINGS: readonly BindingSpec[] = [
  writes("partsO", "array<vec4<f32>>"),
  writes("partsLse", "array<f32>"),
];

/**
 * The log-sum-exp of a state over nothing. −1e30, not −∞: WGSL may assume that there are no infinities, and this floor
 * survives scaling by log2 e.
 */
export const EMPTY_LSE = -1e30;

/** Heads of one KV head that attention kernels hold at once, their values, and the longest head: bounds of workgroup memory. */
const MAX_HEADS_TOGETHER = 32;
const MAX_VALUES_TOGETHER = 4096;
const MAX_HEAD_DIM = 256;

/** Says what `fitsAttention` demands. */
export const HEAD_BOUNDS =
  `up to ${MAX_HEADS_TOGETHER} query heads for a KV head with ${MAX_VALUES_TOGETHER} values, ` +
  `and a headDim up to ${MAX_HEAD_DIM} that is a multiple of 8`;

/** Whether the attention kernels compute heads of this shape. */
export function fitsAttention({ heads, kvHeads, headDim }: HeadShape): boolean {
  const group = heads / kvHeads;
  return Number.isInteger(group) && group <= MAX_HEADS_TOGETHER && group * headDim <= MAX_VALUES_TOGETHER &&
    headDim % 8 === 0 && headDim <= MAX_HEAD_DIM;
}

/**
 * Checks a shape at an attention kernel's door.
 * @throws {GpuError} `invalid_shape`
 */
export function expectHeadShape(op: string, shape: HeadShape): void {
  if (fitsAttention(shape)) return;
  const { heads, kvHeads, headDim } = shape;
  throw new GpuError(
    "invalid_shape",
    `Cannot dispatch ${op}: ${heads}/${kvHeads} heads of ${headDim}, expected ${HEAD_BOUNDS}`,
  );
}

/** Checks the pool's and table's types at a kernel's door; the number of pages is not the kernel's business. */
export function expectPagedKv(op: string, { kvHeads, headDim }: HeadShape, { kv, pageTable, maxPages }: PagedKv): void {
  expectTensor(op, kv.k, "f16", [1, kvHeads, PAGE_ROWS, headDim]);
  expectTensor(op, kv.v, "f16", [1, kvHeads, PAGE_ROWS, headDim]);
  expectTensor(op, pageTable, "u32", [1, maxPages]);
}

/** WGSL: the first and the last four of the eight halves that 16 bytes hold. */
export const HALVES_WGSL = /* wgsl */ `
fn low(words: vec4<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)); }
fn high(words: vec4<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w)); }
`;

/**
 * WGSL: where a local row's K or V starts in the pool, in units of `unit` halves (8 for vec4<u32>, 2 for u32). Reads the
 * binding `pageTable: array<u32>` and the parameter `maxPages`.
 */
export function kvAddressWgsl({ kvHeads, headDim }: HeadShape, unit: number): string {
  return /* wgsl */ `
fn kvAddress(sequenceSlot: u32, localRow: u32, kvHead: u32) -> u32 {
  let page = pageTable[sequenceSlot * params.maxPages + (localRow >> 6u)];
  return ((page * ${kvHeads}u + kvHead) * ${PAGE_ROWS}u + (localRow & ${PAGE_ROWS - 1}u)) * ${headDim / unit}u;
}
`;
}
