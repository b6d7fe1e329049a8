/**
 * What logits say about one token of each row: its log-probability, the most likely token, and the log-sum-exp.
 * For perplexity, log-probabilities of answers, and audits. Knows rows of logits.
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

/** Operands of the scores. */
export interface TokenScores {
  /** f32 [rows, vocabulary] */
  readonly logits: Tensor;
  /** u32 [rows], each below `vocabulary` */
  readonly targets: Tensor;
  /** f32 [rows, 2]: natural log of the target's probability, log-sum-exp of the row */
  readonly scores: Tensor;
  /** u32 [rows]: the token of the highest logit; ties go to the lower id */
  readonly best: Tensor;
  readonly rows: number;
  readonly vocabulary: number;
}

/**
 * Scores a target token of each row.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function tokenScores(commands: Commands, operands: TokenScores): void {
  const { logits, targets, scores, best, rows, vocabulary } = operands;
  expectTensor("token_scores", logits, "f32", [rows, vocabulary]);
  expectTensor("token_scores", targets, "u32", [rows]);
  expectTensor("token_scores", scores, "f32", [rows, 2]);
  expectTensor("token_scores", best, "u32", [rows]);
  const threads = logitThreads(commands.gpu.info);
  commands.dispatch(commands.kernel(`token_scores ${threads}`, () => spec(threads)), {
    tensors: [logits, targets, scores, best],
    params: { rows, vocabulary },
    groups: spread(rows),
  });
}

function spec(threads: number): KernelSpec {
  return {
    bindings: [
      reads("logits", "array<f32>"),
      reads("targets", "array<u32>"),
      writes("scores", "array<vec2<f32>>"),
      writes("best", "array<u32>"),
    ],
    params: [["rows", "u32"], ["vocabulary", "u32"]],
    source: `
      ${bestOverWorkgroup(threads)}
      ${sumOverWorkgroup(threads)}
      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let row = ${GROUP_INDEX};
        if (row >= params.rows) { return; }
        let first = row * params.vocabulary;
        let top = workgroup_best(t, highest(first, t));
        var sum = 0.0;
        ${eachLogit(threads, (logit) => `sum += exp(${logit} - top.value);`)}
        let log_sum = log(workgroup_sum(t, sum));
        if (t == 0u) {
          let target_logit = logits[first + min(targets[row], params.vocabulary - 1u)];
          scores[row] = vec2<f32>(target_logit - top.value - log_sum, top.value + log_sum);
          best[row] = top.index;
        }
      }
      ${highestLogit(threads)}`,
  };
}
