/**
 * One token for each row of logits, by Gumbel-max: argmax(logit / T + g), where g depends only on seed, output index and
 * token, so that a draw needs no state and never depends on its company. top_k, top_p and min_p are masks, exact over
 * the whole vocabulary. Knows logits and numbers; penalties were applied before (`adjust_logits.ts`).
 */

import { MIX } from "./counter_hash.ts";
import { logitThreshold } from "./logit_threshold.ts";
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

/** How the token of a row is drawn. */
export interface RowSampling {
  /** 0 takes the highest logit, of equal ones the lowest id; so does everything below 1e-5. */
  readonly temperature: number;
  /** Keeps the k highest logits and those equal to the lowest of them; 1 is the same as temperature 0. @default all */
  readonly topK?: number | undefined;
  /**
   * Of what top_k kept, keeps the most likely tokens until their probabilities sum to `topP`, with the one that gets
   * there and those equal to it. @default 1, all
   */
  readonly topP?: number | undefined;
  /** Keeps tokens with at least this share of the highest probability. @default 0, all */
  readonly minP?: number | undefined;
  /** u32 */
  readonly seed: number;
  /** How many tokens this sequence has produced before. */
  readonly outputIndex: number;
}

/** u32 words of a row's sampling on the GPU. */
export const SAMPLING_WORDS = 8;

/** Operands of sampling. */
export interface Sample {
  /** f32 [rows, vocabulary] */
  readonly logits: Tensor;
  /** u32 [rows, SAMPLING_WORDS], as `packSampling` makes them */
  readonly sampling: Tensor;
  /** u32 [rows]: the tokens drawn */
  readonly tokens: Tensor;
  readonly rows: number;
  readonly vocabulary: number;
}

/** Sampling settings as words for the GPU. */
export function packSampling(rows: readonly RowSampling[]): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(rows.length * SAMPLING_WORDS);
  const floats = new Float32Array(words.buffer);
  rows.forEach(({ temperature, topK, topP, minP, seed, outputIndex }, row) => {
    const at = row * SAMPLING_WORDS;
    floats[at] = temperature;
    words[at + 1] = topK ?? 0;
    floats[at + 2] = topP ?? 1;
    floats[at + 3] = minP ?? 0;
    words[at + 4] = seed;
    words[at + 5] = outputIndex;
  });
  return words;
}

/**
 * Draws a token for each row.
 * @param threads of a workgroup, a power of two from 32 to 1024
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function sample(
  commands: Commands,
  { logits, sampling, tokens, rows, vocabulary }: Sample,
  threads: number = logitThreads(commands.gpu.info),
): void {
  expectTensor("sample", logits, "f32", [rows, vocabulary]);
  expectTensor("sample", sampling, "u32", [rows, SAMPLING_WORDS]);
  expectTensor("sample", tokens, "u32", [rows]);
  commands.dispatch(commands.kernel(`sample ${threads}`, () => spec(threads)), {
    tensors: [logits, sampling, tokens],
    params: { rows, vocabulary },
    groups: spread(rows),
  });
}

function spec(threads: number): KernelSpec {
  return {
    bindings: [
      reads("logits", "array<f32>"),
      reads("sampling", "array<vec4<u32>>"),
      writes("tokens", "array<u32>"),
    ],
    params: [["rows", "u32"], ["vocabulary", "u32"]],
    source: `
      ${MIX}
      ${bestOverWorkgroup(threads)}
      ${sumOverWorkgroup(threads)}
      ${highestLogit(threads)}
      ${logitThreshold(threads)}
      ${GUMBEL}
      ${filter(threads)}
      ${draw(threads)}
      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let index = ${GROUP_INDEX};
        if (index >= params.rows) { return; }
        let settings = sampling[2u * index];
        let stream = sampling[2u * index + 1u];
        let first = index * params.vocabulary;
        var best = workgroup_best(t, highest(first, t));
        let temperature = bitcast<f32>(settings.x);
        if (temperature >= 1e-5 && settings.y != 1u) {
          var row = Row(first, best.value, 1.0 / temperature, 0u, 0.0);
          row.low = lowest_kept(row, t, settings.y, bitcast<f32>(settings.z));
          let base = mix(stream.y + mix(stream.x));
          best = workgroup_best(t, draw(row, t, bitcast<f32>(settings.w), base));
        }
        if (t == 0u) { tokens[index] = best.index; }
      }`,
  };
}

/** Whole numbers for masses: probabilities times 2³¹ sum to no more than a u32 holds. */
function filter(threads: number): string {
  return `
      fn lowest_kept(row: Row, t: u32, top_k: u32, top_p: f32) -> u32 {
        var kept = row;
        if (top_k > 0u && top_k < params.vocabulary) { kept.low = threshold(kept, t, top_k); }
        if (top_p >= 1.0) { return kept.low; }
        let first = row.first;
        var sum = 0.0;
        ${
    eachLogit(threads, (logit) =>
      `if (key_of(${logit}) >= kept.low) { sum += exp((${logit} - row.top) * row.inverse_temperature); }`)
  }
        kept.mass_scale = 2147483648.0 / workgroup_sum(t, sum);
        return threshold(kept, t, max(1u, u32(max(0.0, top_p) * 2147483648.0)));
      }`;
}

function draw(threads: number): string {
  return `
      fn draw(row: Row, t: u32, min_p: f32, base: u32) -> Best {
        let first = row.first;
        var lowest_scaled = -3.4e38;
        if (min_p > 0.0) { lowest_scaled = log(min_p); }
        var best = Best(-3.4e38, params.vocabulary - 1u);
        ${
    eachLogit(threads, (logit, token) =>
      `let scaled = (${logit} - row.top) * row.inverse_temperature;
         if (key_of(${logit}) >= row.low && scaled >= lowest_scaled) {
           let value = scaled + gumbel(base, ${token});
           if (value > best.value) { best = Best(value, ${token}); }
         }`)
  }
        return best;
      }`;
}

/**
 * g = −ln(−ln(1 − v)), v uniform in (0, 1) with 32 bits. For small v, where the highest g come from, 1 − v would round
 * most of them away: a series of −ln(1 − v) keeps them.
 */
const GUMBEL = `
      fn gumbel(base: u32, token: u32) -> f32 {
        let bits = mix(mix(token + base) ^ base);
        let v = min((f32(bits) + 0.5) / 4294967296.0, 0.99999994);
        let series = v * (1.0 + v * (1.0 / 2.0 + v * (1.0 / 3.0 + v * (1.0 / 4.0 + v * (1.0 / 5.0)))));
        return -log(select(-log(1.0 - v), series, v < 0.03));
      }`;
