/**
 * What an answer's log-probabilities are made of: the log-sum-exp of a row of logits, its highest logits with their tokens, and
 * the logit of one more token, in a few words instead of the whole row. The highest are found by a radix select
 * (`logit_threshold.ts`), exactly. Knows rows of logits; knows nothing of what was asked for.
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
import { logitThreshold } from "./logit_threshold.ts";

/** Tokens that are listed of each row: as many as a request may ask for. */
export const LISTED_TOKENS = 20;

/** u32 words of a row's result: log-sum-exp above the highest logit, logit of the token, then tokens, then their logits; f32 but for the tokens. */
export const LOGPROB_WORDS = 2 + 2 * LISTED_TOKENS;

/** The log-probabilities of one row. */
export interface RowLogprobs {
  /** ln Σ exp(logit) */
  readonly logSumExp: number;
  readonly tokenLogit: number;
  /** The highest first, ties by lower id; all tokens of a small vocabulary. */
  readonly top: readonly { readonly token: number; readonly logit: number }[];
}

/** Operands of the listing. */
export interface TopLogprobs {
  /** f32 [≥ every row named, vocabulary] */
  readonly logits: Tensor;
  /** u32 [count, 2]: row of `logits`, row of `tokens` */
  readonly places: Tensor;
  /** u32 [≥ every row named], each below `vocabulary` */
  readonly tokens: Tensor;
  /** Written: u32 [count, LOGPROB_WORDS] */
  readonly results: Tensor;
  readonly count: number;
  readonly vocabulary: number;
}

/**
 * Lists the highest logits of rows.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function topLogprobs(commands: Commands, operands: TopLogprobs): void {
  const { logits, places, tokens, results, count, vocabulary } = operands;
  expectTensor("top_logprobs", logits, "f32", [Math.min(1, count), vocabulary]);
  expectTensor("top_logprobs", places, "u32", [count, 2]);
  expectTensor("top_logprobs", tokens, "u32", [1]);
  expectTensor("top_logprobs", results, "u32", [count, LOGPROB_WORDS]);
  const threads = logitThreads(commands.gpu.info);
  commands.dispatch(commands.kernel(`top_logprobs ${threads}`, () => spec(threads)), {
    tensors: [logits, places, tokens, results],
    params: { count, vocabulary, listed: Math.min(LISTED_TOKENS, vocabulary) },
    groups: spread(count),
  });
}

/** The result of one row. @param words as they were read, of row `index` */
export function unpackLogprobs(
  words: Uint32Array<ArrayBuffer>,
  index: number,
  vocabulary: number,
): RowLogprobs {
  const own = words.subarray(index * LOGPROB_WORDS, (index + 1) * LOGPROB_WORDS);
  const floats = new Float32Array(own.buffer, own.byteOffset, own.length);
  const [logSum = NaN, tokenLogit = NaN] = floats;
  const top = Array.from({ length: Math.min(LISTED_TOKENS, vocabulary) }, (_, i) => ({
    token: own[2 + i] ?? NaN,
    logit: floats[2 + LISTED_TOKENS + i] ?? NaN,
  }));
  // In f64: f32 would lose what large logits leave of the sum.
  return { logSumExp: (top[0]?.logit ?? NaN) + logSum, tokenLogit, top };
}

function spec(threads: number): KernelSpec {
  return {
    bindings: [
      reads("logits", "array<f32>"),
      reads("places", "array<vec2<u32>>"),
      reads("tokens", "array<u32>"),
      writes("results", "array<u32>"),
    ],
    params: [["count", "u32"], ["vocabulary", "u32"], ["listed", "u32"]],
    source: source(threads),
  };
}

function source(threads: number): string {
  return /* wgsl */ `
      ${bestOverWorkgroup(threads)}
      ${sumOverWorkgroup(threads)}
      ${highestLogit(threads)}
      ${logitThreshold(threads)}
      ${collect(threads)}
      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let index = ${GROUP_INDEX};
        if (index >= params.count) { return; }
        let place = places[index];
        let first = place.x * params.vocabulary;
        let top = workgroup_best(t, highest(first, t)).value;
        var sum = 0.0;
        ${eachLogit(threads, (logit) => `sum += exp(${logit} - top);`)}
        let log_sum = log(workgroup_sum(t, sum));
        let lowest = threshold(Row(first, top, 1.0, 0u, 0.0), t, params.listed);
        collect(first, t, lowest);
        let at = index * ${LOGPROB_WORDS}u;
        if (t == 0u) {
          results[at] = bitcast<u32>(log_sum);
          results[at + 1u] = bitcast<u32>(logits[first + min(tokens[place.y], params.vocabulary - 1u)]);
        }
        if (t < params.listed) {
          let own = listed[t];
          var rank = 0u;
          for (var i = 0u; i < params.listed; i++) { if (precedes(listed[i], own)) { rank++; } }
          results[at + 2u + rank] = own.index;
          results[at + ${2 + LISTED_TOKENS}u + rank] = bitcast<u32>(own.value);
        }
      }`;
}

/**
 * Declares `collect(first, t, lowest)`: puts the logits above a threshold into `listed`, and of those at the threshold the ones
 * with the lowest ids, as many as there is room for.
 */
function collect(threads: number): string {
  return `
      var<workgroup> listed: array<Best, ${LISTED_TOKENS}>;
      var<workgroup> above: atomic<u32>;
      var<workgroup> filled: u32;
      fn precedes(a: Best, b: Best) -> bool {
        return a.value > b.value || (a.value == b.value && a.index < b.index);
      }
      fn collect(first: u32, t: u32, lowest: u32) {
        if (t == 0u) { atomicStore(&above, 0u); }
        workgroupBarrier();
        ${
    eachLogit(threads, (logit, token) =>
      `if (key_of(${logit}) > lowest) {
           // Fewer than there is room for: the threshold is among the listed.
           let slot = min(atomicAdd(&above, 1u), ${LISTED_TOKENS - 1}u);
           listed[slot] = Best(${logit}, ${token});
         }`)
  }
        workgroupBarrier();
        if (t == 0u) { filled = atomicLoad(&above); }
        var after = 0u;
        for (var slot = workgroupUniformLoad(&filled); slot < params.listed; slot++) {
          var lowest_id = Best(0.0, params.vocabulary - 1u);
          ${
    eachLogit(threads, (logit, token) =>
      `if (key_of(${logit}) == lowest && ${token} >= after && lowest_id.value == 0.0) { lowest_id = Best(1.0, ${token}); }`)
  }
          let tied = workgroup_best(t, lowest_id).index;
          if (t == 0u) { listed[slot] = Best(logits[first + tied], tied); }
          after = tied + 1u;
        }
        workgroupBarrier();
      }`;
}
