/**
 * Puts rows of logits aside as f16, half the memory, until a later pass is compared with them. Knows rows and places;
 * knows nothing of whose they are.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { MAX_HALF } from "../half.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, reads, writes } from "../wgsl.ts";

/** Operands of the keeping. */
export interface KeepLogits {
  /** f32 [≥ every source row, vocabulary] */
  readonly logits: Tensor;
  /** u32 [count, 2]: row of `logits`, row of `kept` that takes it */
  readonly places: Tensor;
  /** Written: f16 [≥ every place, keptWidth(vocabulary)] */
  readonly kept: Tensor;
  readonly count: number;
  readonly vocabulary: number;
}

const THREADS = 256;

/** Elements that a kept row takes: an even number, as two share a word. */
export function keptWidth(vocabulary: number): number {
  return vocabulary + vocabulary % 2;
}

/**
 * Copies rows of logits to their places, rounded to f16.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function keepLogits(commands: Commands, { logits, places, kept, count, vocabulary }: KeepLogits): void {
  expectTensor("keep_logits", logits, "f32", [count, vocabulary]);
  expectTensor("keep_logits", places, "u32", [count, 2]);
  expectTensor("keep_logits", kept, "f16", [count, keptWidth(vocabulary)]);
  const words = keptWidth(vocabulary) / 2;
  commands.dispatch(commands.kernel("keep_logits", spec), {
    tensors: [logits, places, kept],
    params: { vocabulary, words },
    groups: [Math.ceil(words / THREADS), count, 1],
  });
}

function spec(): KernelSpec {
  // What f16 cannot hold is cut: no infinity is stored.
  const half = (token: string) =>
    `clamp(logits[place.x * params.vocabulary + min(${token}, params.vocabulary - 1u)], -${MAX_HALF}f, ${MAX_HALF}f)`;
  return {
    bindings: [
      reads("logits", "array<f32>"),
      reads("places", "array<vec2<u32>>"),
      writes("kept", "array<u32>"),
    ],
    params: [["vocabulary", "u32"], ["words", "u32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let word = group.x * ${THREADS}u + t;
        if (word >= params.words) { return; }
        let place = places[group.y];
        kept[place.y * params.words + word] = pack2x16float(vec2<f32>(${half("2u * word")}, ${half("2u * word + 1u")}));
      }`,
  };
}
