/**
 * Penalties and biases on single logits, before sampling. Knows rows, tokens and numbers; what they stand for (repetition,
 * presence, frequency, a banned token) is the caller's business.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";

/** What happens to one logit. A pair of row and token occurs at most once in a list. */
export interface Adjustment {
  readonly row: number;
  readonly token: number;
  /** Divides a positive logit, multiplies another one; 1 changes nothing. */
  readonly repetition: number;
  /** Added afterwards; `BANNED` keeps the token from ever being drawn. */
  readonly bias: number;
}

/** The bias of a banned token. Finite: WGSL may assume no infinities. */
export const BANNED = -1e30;

/** u32 words of an adjustment on the GPU. */
export const ADJUSTMENT_WORDS = 4;

/** Operands of the adjustments. */
export interface AdjustLogits {
  /** f32 [rows, vocabulary] */
  readonly logits: Tensor;
  /** u32 [count, ADJUSTMENT_WORDS], as `packAdjustments` makes them */
  readonly adjustments: Tensor;
  readonly count: number;
  readonly rows: number;
  readonly vocabulary: number;
}

const THREADS = 64;

/** Adjustments as words for the GPU. */
export function packAdjustments(adjustments: readonly Adjustment[]): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(adjustments.length * ADJUSTMENT_WORDS);
  const floats = new Float32Array(words.buffer);
  adjustments.forEach(({ row, token, repetition, bias }, i) => {
    words.set([row, token], i * ADJUSTMENT_WORDS);
    floats.set([repetition, bias], i * ADJUSTMENT_WORDS + 2);
  });
  return words;
}

/**
 * Applies adjustments in place; those outside [rows, vocabulary] are ignored.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function adjustLogits(commands: Commands, operands: AdjustLogits): void {
  const { logits, adjustments, count, rows, vocabulary } = operands;
  expectTensor("adjust_logits", logits, "f32", [rows, vocabulary]);
  expectTensor("adjust_logits", adjustments, "u32", [count, ADJUSTMENT_WORDS]);
  commands.dispatch(commands.kernel("adjust_logits", spec), {
    tensors: [adjustments, logits],
    params: { count, rows, vocabulary },
    groups: spread(Math.ceil(count / THREADS)),
  });
}

function spec(): KernelSpec {
  return {
    bindings: [reads("adjustments", "array<vec4<u32>>"), writes("logits", "array<f32>")],
    params: [["count", "u32"], ["rows", "u32"], ["vocabulary", "u32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.count) { return; }
        let words = adjustments[i];
        if (words.x >= params.rows || words.y >= params.vocabulary) { return; }
        let at = words.x * params.vocabulary + words.y;
        let repetition = bitcast<f32>(words.z);
        let logit = logits[at];
        let penalised = select(logit * repetition, logit / repetition, logit > 0.0);
        logits[at] = penalised + bitcast<f32>(words.w);
      }`,
  };
}
