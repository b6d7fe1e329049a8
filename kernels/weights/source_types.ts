/**
 * Element types of weights in files, and what each is kept as on the GPU. Plain ones are those of safetensors; blocks are
 * those of GGUF, whose definitions ggml gives. Knows bytes; knows nothing of files.
 */

import type { QuantizedDType, WeightDType } from "./format.ts";

/** Plain numbers. */
export type PlainDType = "F32" | "F16" | "BF16";

/** Quantised blocks. */
export type BlockDType = "Q8_0" | "Q4_0" | "Q5_0" | "Q4_K" | "Q5_K" | "Q6_K";

/** Element types of weights in files. */
export type SourceDType = PlainDType | BlockDType;

/** A block of weights as a file has it. */
interface Block {
  readonly weights: number;
  readonly bytes: number;
}

/** What a block is kept as, and where its f16 scales lie. */
interface QuantizedBlock extends Block {
  readonly keptAs: QuantizedDType;
  /** Byte offset of an f16, and the largest factor that it is multiplied by. */
  readonly scales: readonly (readonly [offset: number, largestFactor: number])[];
}

const PLAIN: Readonly<Record<PlainDType, Block>> = {
  F32: { weights: 1, bytes: 4 },
  F16: { weights: 1, bytes: 2 },
  BF16: { weights: 1, bytes: 2 },
};

/** The block types. */
export const BLOCKS: Readonly<Record<BlockDType, QuantizedBlock>> = {
  Q8_0: { weights: 32, bytes: 34, keptAs: "q8", scales: [[0, 128]] },
  Q4_0: { weights: 32, bytes: 18, keptAs: "q4", scales: [[0, 8]] },
  Q5_0: { weights: 32, bytes: 22, keptAs: "q5", scales: [[0, 16]] },
  Q4_K: { weights: 256, bytes: 144, keptAs: "q4k", scales: [[0, 63 * 15], [2, 63]] },
  Q5_K: { weights: 256, bytes: 176, keptAs: "q5k", scales: [[0, 63 * 31], [2, 63]] },
  Q6_K: { weights: 256, bytes: 210, keptAs: "q6k", scales: [[208, 128 * 32]] },
};

/** Whether weights of this type come in quantised blocks. */
export function isBlockType(source: SourceDType): source is BlockDType {
  return Object.hasOwn(BLOCKS, source);
}

/** Weights and bytes of the smallest unit of a type. */
export function blockOf(source: SourceDType): Block {
  return isBlockType(source) ? BLOCKS[source] : PLAIN[source];
}

/** Bytes of so many weights in a file; fractional when they are no whole blocks. */
export function sourceBytes(source: SourceDType, weights: number): number {
  const { weights: unit, bytes } = blockOf(source);
  return weights / unit * bytes;
}

/** What weights of a type are kept as when nothing else is asked for. */
export function keptAs(source: SourceDType): WeightDType {
  if (isBlockType(source)) return BLOCKS[source].keptAs;
  return source === "F32" ? "f32" : "f16";
}
