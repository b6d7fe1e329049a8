/**
 * How weights are kept on the GPU. Quantised ones lie in groups of 32 along a row, as planes back to back in one buffer:
 * first the quanta of all groups, then their scales, so that neighbouring threads read neighbouring words whatever the
 * number of bits. Knows layouts and bytes; `read_eight.ts` decodes them, `pack_groups.ts` fills them.
 */

/**
 * - `f16`, `f32`: plain.
 * - `q8`, `q4`, `q5`: integers of that many bits times a scale for each group, an f16.
 * - `q4k`, `q5k`: in super-blocks of eight groups; a group has a scale and a minimum of 6 bits each, times those of the
 *   super-block, two f16.
 * - `q6k`: the same, with a scale of 8 bits for every 16 weights, and no minimum.
 */
export type WeightDType = "f16" | "f32" | QuantizedDType;

/** The types whose weights are integers with scales. */
export const QUANTIZED_DTYPES = ["q8", "q4", "q5", "q4k", "q5k", "q6k"] as const;

/** One of {@link QUANTIZED_DTYPES}. */
export type QuantizedDType = (typeof QUANTIZED_DTYPES)[number];

/** Every {@link WeightDType}. */
export const WEIGHT_DTYPES: readonly WeightDType[] = ["f16", "f32", ...QUANTIZED_DTYPES];

/** Weights of a group. */
export const GROUP = 32;

/** Groups of a super-block. */
export const GROUPS_OF_BLOCK = 8;

/** What distinguishes a quantised type. Planes come in this order, each padded to 16 bytes. */
export interface QuantizedFormat {
  /** Weights that share what is stored once: a row is a multiple of it. */
  readonly block: number;
  /** Words of a group in the first plane: its quanta, or their lower four bits. */
  readonly quantaWords: number;
  /** Bits of a quantum that lie in a plane of their own, above the lower four. */
  readonly highBits: 0 | 1 | 2;
  /** What is subtracted from a quantum. */
  readonly zero: number;
  /** `group`: an f16 for each group. `block`: two bytes for each group, then a word for each super-block. */
  readonly scales: "group" | "block";
}

/** The quantised types. */
export const QUANTIZED: Readonly<Record<QuantizedDType, QuantizedFormat>> = {
  q8: { block: GROUP, quantaWords: 8, highBits: 0, zero: 0, scales: "group" },
  q4: { block: GROUP, quantaWords: 4, highBits: 0, zero: 8, scales: "group" },
  q5: { block: GROUP, quantaWords: 4, highBits: 1, zero: 16, scales: "group" },
  q4k: { block: 256, quantaWords: 4, highBits: 0, zero: 0, scales: "block" },
  q5k: { block: 256, quantaWords: 4, highBits: 1, zero: 0, scales: "block" },
  q6k: { block: 256, quantaWords: 4, highBits: 2, zero: 32, scales: "block" },
};

/** Whether groups have a minimum that is taken from what their scale makes. */
export function hasMinimum(dtype: QuantizedDType): boolean {
  return dtype === "q4k" || dtype === "q5k";
}

/** Where the planes of a part begin, and where the last one ends, in words. */
export interface Planes {
  readonly high: number;
  readonly scales: number;
  readonly blocks: number;
  readonly end: number;
}

const WORDS_OF_VECTOR = 4;

/** Whether weights of this type are integers with scales. */
export function isQuantized(dtype: WeightDType): dtype is QuantizedDType {
  return dtype !== "f16" && dtype !== "f32";
}

/** The planes of so many weights, which are whole blocks. */
export function planesOf(dtype: QuantizedDType, weights: number): Planes {
  const { quantaWords, highBits, scales } = QUANTIZED[dtype];
  const groups = weights / GROUP;
  const high = groups * quantaWords;
  const scalesAt = high + padded(groups * highBits);
  const blocks = scalesAt + padded(groups / 2);
  return { high, scales: scalesAt, blocks, end: blocks + (scales === "block" ? padded(groups / GROUPS_OF_BLOCK) : 0) };
}

/** Bytes of so many weights on the GPU. */
export function weightBytes(dtype: WeightDType, weights: number): number {
  if (isQuantized(dtype)) return planesOf(dtype, weights).end * 4;
  return weights * (dtype === "f16" ? 2 : 4);
}

/** Columns of a weight are a multiple of this. */
export function columnsMultiple(dtype: WeightDType): number {
  return isQuantized(dtype) ? QUANTIZED[dtype].block : 8;
}

function padded(words: number): number {
  return Math.ceil(words / WORDS_OF_VECTOR) * WORDS_OF_VECTOR;
}
