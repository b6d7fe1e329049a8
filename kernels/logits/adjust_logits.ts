/**
 * Penalties and biases on rows of logits, before sampling: repetition, presence and frequency by counts of tokens that stay
 * on the GPU, biases by lists. Reads counts, and what differs from them at a row; `count_tokens.ts` writes them.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, reads, writes } from "../wgsl.ts";

/** A range of entries. */
export type EntryRange = readonly [from: number, to: number];

/** What happens to one row of logits. */
export interface AdjustedRow {
  readonly row: number;
  /** Divides positive logits of tokens that occurred, multiplies others; 1 changes nothing. */
  readonly repetition: number;
  /** Subtracted from the logits of tokens that the output has. */
  readonly presence: number;
  /** The same, times their number. */
  readonly frequency: number;
  /** Row of the counts; undefined: the row counts nothing. */
  readonly place: number | undefined;
  /** Entries of tokens and of what to add to their counts, for this row alone. */
  readonly changes: EntryRange;
  /** Entries of tokens, each at most once, and of what is added to their logits; `BANNED` keeps a token from being drawn. */
  readonly biases: EntryRange;
}

/** A token, and a change of its count (i32) or a bias of its logit (f32). */
export type Entry = { readonly token: number } & ({ readonly change: number } | { readonly bias: number });

/** The bias of a banned token. Finite: WGSL may assume no infinities. */
export const BANNED = -1e30;

/** The bit of a count which says that the prompt has the token; the others count it in the output. */
export const IN_PROMPT = 0x80000000;

/** u32 words of an adjusted row on the GPU. */
export const ADJUSTED_WORDS = 12;

/** u32 words of an entry. */
export const ENTRY_WORDS = 2;

/** Operands of the adjustments. */
export interface AdjustLogits {
  /** f32 [≥ every row named, vocabulary] */
  readonly logits: Tensor;
  /** u32 [count, ADJUSTED_WORDS], as `packAdjustedRows` makes them; each row of logits at most once */
  readonly rows: Tensor;
  /** u32 [≥ every entry named, ENTRY_WORDS], as `packEntries` makes them */
  readonly entries: Tensor;
  /** u32 [≥ every place named, vocabulary]; undefined where no row has a place */
  readonly counts: Tensor | undefined;
  readonly count: number;
  readonly vocabulary: number;
}

const THREADS = 256;

/** Stands for no row, and for no place. */
const NONE = 0xffffffff;

/** Rows as words for the GPU, filled up to `count` with rows that nothing happens to. */
export function packAdjustedRows(rows: readonly AdjustedRow[], count: number): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(count * ADJUSTED_WORDS).fill(NONE);
  const floats = new Float32Array(words.buffer);
  rows.forEach(({ row, repetition, presence, frequency, place, changes, biases }, i) => {
    const at = i * ADJUSTED_WORDS;
    words.set([row, place ?? NONE, ...changes, ...biases], at);
    floats.set([repetition, presence, frequency], at + 6);
  });
  return words;
}

/** Entries as words for the GPU. */
export function packEntries(entries: readonly Entry[]): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(entries.length * ENTRY_WORDS);
  const floats = new Float32Array(words.buffer);
  entries.forEach((entry, i) => {
    words[i * ENTRY_WORDS] = entry.token;
    if ("bias" in entry) floats[i * ENTRY_WORDS + 1] = entry.bias;
    else words[i * ENTRY_WORDS + 1] = entry.change;
  });
  return words;
}

/**
 * Adjusts rows in place.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function adjustLogits(commands: Commands, operands: AdjustLogits): void {
  const { logits, rows, entries, counts, count, vocabulary } = operands;
  expectTensor("adjust_logits", logits, "f32", [Math.min(1, count), vocabulary]);
  expectTensor("adjust_logits", rows, "u32", [count, ADJUSTED_WORDS]);
  expectTensor("adjust_logits", entries, "u32", [0, ENTRY_WORDS]);
  if (counts !== undefined) expectTensor("adjust_logits", counts, "u32", [Math.min(1, count), vocabulary]);
  const counted = counts === undefined ? [] : [counts];
  const kernel = commands.kernel(`adjust_logits ${counted.length}`, () => spec(counted.length > 0));
  commands.dispatch(kernel, {
    tensors: [rows, entries, logits, ...counted],
    params: { vocabulary },
    groups: [Math.ceil(vocabulary / THREADS), count, 1],
  });
}

function spec(counts: boolean): KernelSpec {
  return {
    bindings: [
      reads("rows", "array<vec4<u32>>"),
      reads("entries", "array<vec2<u32>>"),
      writes("logits", "array<f32>"),
      ...(counts ? [reads("counts", "array<u32>")] : []),
    ],
    params: [["vocabulary", "u32"]],
    source: source(counts),
  };
}

/** A workgroup looks through all entries of its row, and keeps those of its tokens where these find them at once. */
function source(counts: boolean): string {
  return /* wgsl */ `
      var<workgroup> changes: array<atomic<i32>, ${THREADS}>;
      var<workgroup> biases: array<f32, ${THREADS}>;
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let adjusted = rows[3u * group.y];
        if (adjusted.x == ${NONE}u) { return; }
        let lists = rows[3u * group.y + 1u];
        let frequency = bitcast<f32>(rows[3u * group.y + 2u].x);
        let first = group.x * ${THREADS}u;
        atomicStore(&changes[t], 0);
        biases[t] = 0.0;
        workgroupBarrier();
        for (var i = adjusted.z + t; i < adjusted.w; i += ${THREADS}u) {
          let entry = entries[i];
          if (entry.x - first < ${THREADS}u) { atomicAdd(&changes[entry.x - first], bitcast<i32>(entry.y)); }
        }
        for (var i = lists.x + t; i < lists.y; i += ${THREADS}u) {
          let entry = entries[i];
          if (entry.x - first < ${THREADS}u) { biases[entry.x - first] = bitcast<f32>(entry.y); }
        }
        workgroupBarrier();
        let token = first + t;
        if (token >= params.vocabulary) { return; }
        var word = 0u;
        ${counts ? `if (adjusted.y != ${NONE}u) { word = counts[adjusted.y * params.vocabulary + token]; }` : ""}
        let said = i32(word & ${IN_PROMPT - 1}u) + atomicLoad(&changes[t]);
        let at = adjusted.x * params.vocabulary + token;
        let repetition = select(1.0, bitcast<f32>(lists.z), said > 0 || word >= ${IN_PROMPT}u);
        let presence = select(0.0, bitcast<f32>(lists.w), said > 0);
        let bias = biases[t] - presence - frequency * f32(said);
        if (repetition == 1.0 && bias == 0.0) { return; }
        let logit = logits[at];
        logits[at] = select(logit * repetition, logit / repetition, logit > 0.0) + bias;
      }`;
}
