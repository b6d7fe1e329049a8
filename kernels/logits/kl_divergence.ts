/**
 * How far the distribution of a row of logits is from one that was put aside: KL(row ‖ kept) in nats. For audits: the row
 * is what full attention says, the kept one what sparse attention said. Knows rows of logits.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import {
  bestOverWorkgroup,
  BUILTINS,
  eachLogit,
  GROUP_INDEX,
  highestLogit,
  logitThreads,
  reads,
  spread,
  sumOverWorkgroup,
  writes,
} from "../wgsl.ts";
import { keptWidth } from "./keep_logits.ts";

/** Operands of the divergence. */
export interface KlDivergence {
  /** f32 [≥ every row named, vocabulary] */
  readonly logits: Tensor;
  /** f16 rows as `keepLogits` leaves them */
  readonly kept: Tensor;
  /** u32 [count, 2]: row of `logits`, row of `kept` */
  readonly places: Tensor;
  /** Written: f32 [count], 0 or more */
  readonly divergences: Tensor;
  readonly count: number;
  readonly vocabulary: number;
}

/**
 * Compares pairs of rows: Σ p · (ln p − ln q), p the softmax of the row and q that of the kept one.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function klDivergence(commands: Commands, operands: KlDivergence): void {
  const { logits, kept, places, divergences, count, vocabulary } = operands;
  expectTensor("kl_divergence", logits, "f32", [1, vocabulary]);
  expectTensor("kl_divergence", kept, "f16", [1, keptWidth(vocabulary)]);
  expectTensor("kl_divergence", places, "u32", [count, 2]);
  expectTensor("kl_divergence", divergences, "f32", [count]);
  const threads = logitThreads(commands.gpu.info);
  commands.dispatch(commands.kernel(`kl_divergence ${threads}`, () => spec(threads)), {
    tensors: [logits, kept, places, divergences],
    params: { count, vocabulary, words: keptWidth(vocabulary) / 2 },
    groups: spread(count),
  });
}

function spec(threads: number): KernelSpec {
  return {
    bindings: [
      reads("logits", "array<f32>"),
      reads("kept", "array<u32>"),
      reads("places", "array<vec2<u32>>"),
      writes("divergences", "array<f32>"),
    ],
    params: [["count", "u32"], ["vocabulary", "u32"], ["words", "u32"]],
    source: source(threads),
  };
}

function source(threads: number): string {
  const each = (visit: (logit: string, kept: string) => string) =>
    eachLogit(threads, (logit, _, kept) => visit(logit, kept), (token) => `kept_logit(place.y, ${token})`);
  return /* wgsl */ `
      ${bestOverWorkgroup(threads)}
      ${sumOverWorkgroup(threads)}
      fn kept_logit(row: u32, token: u32) -> f32 {
        return unpack2x16float(kept[row * params.words + token / 2u])[token % 2u];
      }
      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let pair = ${GROUP_INDEX};
        if (pair >= params.count) { return; }
        let place = places[pair];
        let first = place.x * params.vocabulary;
        let top = workgroup_best(t, highest(first, t)).value;
        var kept_best = Best(-3.4e38, 0u);
        ${each((_, kept) => `kept_best.value = max(kept_best.value, ${kept});`)}
        let kept_top = workgroup_best(t, kept_best).value;
        var sum = 0.0;
        var kept_sum = 0.0;
        ${each((logit, kept) => `sum += exp(${logit} - top); kept_sum += exp(${kept} - kept_top);`)}
        let lse = top + log(workgroup_sum(t, sum));
        let kept_lse = kept_top + log(workgroup_sum(t, kept_sum));
        var divergence = 0.0;
        ${each((logit, kept) => `divergence += exp(${logit} - lse) * ((${logit} - lse) - (${kept} - kept_lse));`)}
        let total = workgroup_sum(t, divergence);
        if (t == 0u) { divergences[pair] = max(total, 0.0); }
      }
      ${highestLogit(threads)}`;
}
