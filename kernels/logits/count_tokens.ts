/**
 * Counts tokens by sequence, where `adjust_logits.ts` reads the counts: some that the host names, some that were drawn and have
 * not left the GPU. Knows places, tokens and numbers; knows nothing of whose they are.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";
import { CARRIED, carriedFrom } from "./carry_tokens.ts";

/** One count that changes; several changes of one count add up. */
export interface CountUpdate {
  /** Row of the counts. */
  readonly place: number;
  /** Either a token, or the row that it was drawn after. */
  readonly token: number | { readonly drawnAfter: number };
  readonly change: number;
}

/** u32 words of an update on the GPU. */
export const UPDATE_WORDS = 4;

/** Operands of the counting. */
export interface CountTokens {
  /** u32 [count, UPDATE_WORDS], as `packUpdates` makes them */
  readonly updates: Tensor;
  /** u32 [≥ every row named]: the tokens that were drawn */
  readonly drawn: Tensor;
  /** u32 [≥ every place named, vocabulary] */
  readonly counts: Tensor;
  readonly count: number;
  readonly vocabulary: number;
}

const THREADS = 64;

/** Updates as words for the GPU, filled up to `count` with some that change nothing. */
export function packUpdates(updates: readonly CountUpdate[], count: number): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(count * UPDATE_WORDS);
  updates.forEach(({ place, token, change }, i) => {
    words.set([place, typeof token === "number" ? token : carriedFrom(token.drawnAfter), change], i * UPDATE_WORDS);
  });
  return words;
}

/**
 * Applies updates.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function countTokens(commands: Commands, operands: CountTokens): void {
  const { updates, drawn, counts, count, vocabulary } = operands;
  expectTensor("count_tokens", updates, "u32", [count, UPDATE_WORDS]);
  expectTensor("count_tokens", drawn, "u32", [1]);
  expectTensor("count_tokens", counts, "u32", [1, vocabulary]);
  commands.dispatch(commands.kernel("count_tokens", spec), {
    tensors: [updates, drawn, counts],
    params: { count, vocabulary },
    groups: spread(Math.ceil(count / THREADS)),
  });
}

function spec(): KernelSpec {
  return {
    bindings: [
      reads("updates", "array<vec4<u32>>"),
      reads("drawn", "array<u32>"),
      writes("counts", "array<atomic<u32>>"),
    ],
    params: [["count", "u32"], ["vocabulary", "u32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.count) { return; }
        let update = updates[i];
        if (update.z == 0u) { return; }
        var token = update.y;
        if (token >= ${CARRIED}u) { token = drawn[token - ${CARRIED}u]; }
        // Modulo 2³²: what is taken away was counted before, so that the bit of the prompt stays.
        atomicAdd(&counts[update.x * params.vocabulary + token], update.z);
      }`,
  };
}
