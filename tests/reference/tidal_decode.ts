/**
 * TidalDecode for the f64 oracle: which positions a decoded row sees in each layer. Follows ALGORITHM.md word by word,
 * sorting where the GPU selects. Knows roles, budgets and scores; the forward pass itself is `transformer.ts`.
 */

import { type LayerRole, recentOf, rowAttention, SINKS } from "../../engine/layer_plan.ts";
import type { SetShape, SparseSettings } from "../../engine/span.ts";
import { type ReferenceCache, score, type Visible } from "./transformer.ts";

/** The positions 0 … position. */
function upTo(position: number): number[] {
  return Array.from({ length: position + 1 }, (_, p) => p);
}

/** exp(s − lse) of every score. */
function softmax(scores: readonly number[]): number[] {
  const top = scores.reduce((most, s) => Math.max(most, s), -Infinity);
  const weights = scores.map((s) => Math.exp(s - top));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** The `count` best positions, ties by lower position, ascending. */
function best(positions: readonly number[], values: readonly number[], count: number): number[] {
  const value = (position: number) => values[position] ?? -Infinity;
  return [...positions].sort((a, b) => value(b) - value(a) || a - b).slice(0, count).sort((a, b) => a - b);
}

/**
 * Chooses from pooled probabilities: the first positions and the newest ones are always in, the rest of the budget
 * goes to the most probable.
 *
 * @param pooled by position, 0 … the row's own
 * @returns ascending, `budget` of them
 */
export function selectPooled(pooled: readonly number[], budget: number): number[] {
  const position = pooled.length - 1;
  const isForced = (p: number) => p < SINKS || p > position - recentOf(budget);
  const forced = upTo(position).filter(isForced);
  const open = upTo(position).filter((p) => !isForced(p));
  return [...forced, ...best(open, pooled, budget - forced.length)].sort((a, b) => a - b);
}

/** Scores of one row in one layer: [head][position]. */
function rowScores(
  queries: readonly Float64Array[],
  layer: number,
  kvHeads: number,
  cache: ReferenceCache,
): number[][] {
  return queries.map((query, head) => {
    const kvHead = Math.floor(head * kvHeads / queries.length);
    return (cache.keys[layer] ?? []).map((heads) => score(query, heads[kvHead] ?? new Float64Array()));
  });
}

/** One set per query head; heads that share a set hold the same one. */
function chooseSets(scores: readonly number[][], kvHeads: number, { budget, heads }: SparseSettings): number[][] {
  if (heads === "query_head") return scores.map((row) => best(upTo(row.length - 1), row, budget));
  const groups = heads === "all_heads" ? 1 : kvHeads;
  const size = scores.length / groups;
  return scores.map((_, head) => {
    const first = Math.floor(head / size) * size;
    const members = scores.slice(first, first + size).map(softmax);
    const pooled = (members[0] ?? []).map((_, p) => members.reduce((sum, row) => sum + (row[p] ?? 0), 0) / size);
    return selectPooled(pooled, budget);
  });
}

/** The selections of one sequence, newest row only. */
export class TidalDecode {
  /** What the last row chose in each select layer: [layer] → [head]: ascending positions. */
  readonly selections = new Map<number, number[][]>();
  readonly #roles: readonly LayerRole[];
  readonly #kvHeads: number;
  readonly #settings: SparseSettings;
  #current: number[][] = [];

  constructor(roles: readonly LayerRole[], kvHeads: number, settings: { budget: number; heads: SetShape }) {
    this.#roles = roles;
    this.#kvHeads = kvHeads;
    this.#settings = settings;
  }

  /** For {@link ReferenceModel.forward}: rows given this see what sparse decoding lets them see. */
  readonly visible: Visible = ({ layer, head, position, queries }, cache) => {
    if (rowAttention(this.#settings, position) === "dense") return upTo(position);
    const role = this.#roles[layer];
    if (role === "sparse") return this.#current[head] ?? [];
    if (role === "select" && head === 0) {
      this.#current = chooseSets(rowScores(queries, layer, this.#kvHeads, cache), this.#kvHeads, this.#settings);
      this.selections.set(layer, this.#current);
    }
    return upTo(position);
  };
}
