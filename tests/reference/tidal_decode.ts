/**
 * TidalDecode for the f64 oracle: which positions a decoded row sees in each layer. Follows docs/sparse-attention.md
 * step by step,
 * sorting where the GPU selects. Knows roles, budgets and scores; the forward pass itself is `transformer.ts`.
 */

import { ADAPTIVE_FLOOR, type LayerRole, recentOf, rowAttention, SINKS } from "../../engine/layer_plan.ts";
import type { SparseSettings } from "../../engine/span.ts";
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

/** How many positions a set gets. */
type Bounds = Pick<SparseSettings, "budget" | "coverage">;

/**
 * Chooses from pooled probabilities: the first positions and the newest ones are always in, the rest of the budget
 * goes to the most probable, of an adaptive set as few of them as cover its share of the attention.
 *
 * @param pooled by position, 0 … the row's own
 * @returns ascending, `budget` of them, or fewer of an adaptive set
 */
export function selectPooled(pooled: readonly number[], bounds: Bounds): number[] {
  const position = pooled.length - 1;
  const isForced = (p: number) => p < SINKS || p > position - recentOf(bounds);
  return bestWithin(bounds, pooled, upTo(position).filter(isForced));
}

/** The forced positions and the most probable others. */
function bestWithin({ budget, coverage }: Bounds, pooled: readonly number[], forced: readonly number[]): number[] {
  const open = upTo(pooled.length - 1).filter((p) => !forced.includes(p));
  const set = (size: number) => [...forced, ...best(open, pooled, size - forced.length)].sort((a, b) => a - b);
  if (coverage === undefined || coverage === 1) return set(budget);
  for (let size = Math.min(ADAPTIVE_FLOOR, budget); size < budget; size++) {
    if (set(size).reduce((sum, p) => sum + (pooled[p] ?? 0), 0) >= coverage) return set(size);
  }
  return set(budget);
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
function chooseSets(scores: readonly number[][], kvHeads: number, settings: SparseSettings): number[][] {
  const { heads } = settings;
  if (heads === "query_head") return scores.map((row) => bestWithin(settings, softmax(row), []));
  const groups = heads === "all_heads" ? 1 : kvHeads;
  const size = scores.length / groups;
  return scores.map((_, head) => {
    const first = Math.floor(head / size) * size;
    const members = scores.slice(first, first + size).map(softmax);
    const pooled = (members[0] ?? []).map((_, p) => members.reduce((sum, row) => sum + (row[p] ?? 0), 0) / size);
    return selectPooled(pooled, settings);
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

  constructor(roles: readonly LayerRole[], kvHeads: number, settings: SparseSettings) {
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
