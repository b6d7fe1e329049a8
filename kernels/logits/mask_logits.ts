/**
 * Keeps tokens from being drawn, a bit for each: those whose bit is zero get a logit far below any other. Knows rows and
 * bits; which tokens are allowed, and why, is the caller's business.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, reads, writes } from "../wgsl.ts";

/**
 * The logit of a masked token. Finite, as WGSL may assume no infinities; below that of a banned token, so that a ban on the
 * only token that a mask allows does not make the others equal to it.
 */
export const MASKED = -1e32;

/** Tokens in a word of a mask. */
const TOKENS_PER_WORD = 32;

/** Words of a row's mask. */
export function maskWords(vocabulary: number): number {
  return Math.ceil(vocabulary / TOKENS_PER_WORD);
}

/** Operands of the masks. */
export interface MaskLogits {
  /** f32 [≥ every row named, vocabulary] */
  readonly logits: Tensor;
  /** u32 [count]: the row of each mask */
  readonly rows: Tensor;
  /** u32 [count, maskWords(vocabulary)]: token t is bit t % 32 of word ⌊t / 32⌋, and allowed if it is 1 */
  readonly masks: Tensor;
  readonly count: number;
  readonly vocabulary: number;
}

const THREADS = 256;

/**
 * Masks rows in place; a row whose mask allows nothing becomes equal throughout.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function maskLogits(commands: Commands, { logits, rows, masks, count, vocabulary }: MaskLogits): void {
  const words = maskWords(vocabulary);
  expectTensor("mask_logits", logits, "f32", [count, vocabulary]);
  expectTensor("mask_logits", rows, "u32", [count]);
  expectTensor("mask_logits", masks, "u32", [count, words]);
  if (count === 0) return;
  commands.dispatch(commands.kernel("mask_logits", spec), {
    tensors: [rows, masks, logits],
    params: { vocabulary, words },
    groups: [Math.ceil(vocabulary / THREADS), count, 1],
  });
}

function spec(): KernelSpec {
  return {
    bindings: [reads("rows", "array<u32>"), reads("masks", "array<u32>"), writes("logits", "array<f32>")],
    params: [["vocabulary", "u32"], ["words", "u32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let token = group.x * ${THREADS}u + t;
        if (token >= params.vocabulary) { return; }
        let word = masks[group.y * params.words + token / ${TOKENS_PER_WORD}u];
        if (((word >> (token % ${TOKENS_PER_WORD}u)) & 1u) == 0u) {
          logits[rows[group.y] * params.vocabulary + token] = ${MASKED};
        }
      }`,
  };
}
