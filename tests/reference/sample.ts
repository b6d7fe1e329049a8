/** Gumbel-max sampling with exact masks, by sorting, in f64; the same hash as the kernel, so that tokens must be equal. */

import { mix } from "../../kernels/logits/counter_hash.ts";
import type { RowSampling } from "../../kernels/logits/sample.ts";

/** What would be drawn, and how sure that is. */
export interface Draw {
  readonly token: number;
  /** How far the runner-up is behind, in units of logit / T; small values are ties to f32. */
  readonly margin: number;
  /** Ids that the masks leave. */
  readonly kept: ReadonlySet<number>;
}

/** @param logits one row */
export function sample(logits: Float32Array, sampling: RowSampling): Draw {
  const { temperature, topK, seed, outputIndex } = sampling;
  const ranked = Array.from(logits.keys()).sort((a, b) => Number(logits[b]) - Number(logits[a]) || a - b);
  const greedy = temperature < 1e-5 || topK === 1;
  const kept = greedy ? ranked : masked(logits, ranked, sampling);
  const value = (token: number) =>
    greedy ? Number(logits[token]) : Number(logits[token]) / temperature + gumbel(seed, outputIndex, token);
  let [token, highest, second] = [ranked[0] ?? 0, -Infinity, -Infinity];
  for (const candidate of kept) {
    const current = value(candidate);
    if (current > highest) [token, highest, second] = [candidate, current, highest];
    else second = Math.max(second, current);
  }
  return { token, margin: highest - second, kept: new Set(kept) };
}

/** The noise of a token. */
export function gumbel(seed: number, outputIndex: number, token: number): number {
  const base = mix((outputIndex + mix(seed)) >>> 0);
  const bits = mix((mix((token + base) >>> 0) ^ base) >>> 0);
  const v = Math.min(Math.fround(bits) / 2 ** 32 + 2 ** -33, 1 - 2 ** -24);
  return -Math.log(-Math.log1p(-v));
}

function masked(logits: Float32Array, ranked: readonly number[], sampling: RowSampling): readonly number[] {
  const { temperature, topK = 0, topP = 1, minP = 0 } = sampling;
  const logit = (token: number | undefined) => token === undefined ? -Infinity : Number(logits[token]);
  const top = logit(ranked[0]);
  const share = (token: number) => Math.exp((logit(token) - top) / temperature);
  let kept = ranked;
  if (topK > 0) {
    const lowest = logit(ranked[Math.min(topK, ranked.length) - 1]);
    kept = kept.filter((token) => logit(token) >= lowest);
  }
  if (topP < 1) {
    const total = kept.reduce((sum, token) => sum + share(token), 0);
    let sum = 0;
    const last = kept.find((token) => (sum += share(token)) >= topP * total);
    kept = kept.filter((token) => logit(token) >= logit(last));
  }
  return kept.filter((token) => share(token) >= minP);
}
