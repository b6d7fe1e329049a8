/**
 * Whether the sparse layers of a sequence read replicas of what other workers hold, or exchange states; and how much room
 * its replicas get. Both follow from how the sequence was opened, the model's shape and the group alone, so that a row's bits
 * depend neither on its company nor on the time. Knows sizes; knows nothing of memory or costs.
 */

import { MAX_REPLICA_SLOTS } from "./kv/replica_store.ts";
import { recentOf } from "./layer_plan.ts";
import type { ModelConfig } from "./model/model_config.ts";
import { PAGE_TOKENS, type SequenceOpening, type SparseSettings } from "./span.ts";

/** How the sparse layers of a group reach what other workers hold: `auto` as each sequence's opening says. */
export const SPARSE_EXCHANGES = ["auto", "rows", "states"] as const;

/** One of them. */
export type SparseExchange = typeof SPARSE_EXCHANGES[number];

/** Rows of one sequence's replicas, the same number for every KV head. */
export interface ReplicaRoom {
  /** The newest rows, which every worker computes itself: position p lies at p modulo this. */
  readonly ring: number;
  /** The others, which their owners send. */
  readonly store: number;
}

/** What a plan depends on besides the settings. */
export interface ReplicaBounds {
  readonly config: Pick<ModelConfig, "heads" | "kvHeads" | "headDim">;
  /** Of the worker with the smallest pool. */
  readonly pages: number;
  readonly exchange: SparseExchange;
}

/** Budgets that a store holds: of larger ones, the misses are hardly fewer. */
const STORE_BUDGETS = 8;

/** Sequences that should find room beside each other before their stores get more than they need. */
const SEQUENCES_AT_ONCE = 16;

/** The least that a round needs is one selection; a store of two always has a slot that the round does not use. */
const MIN_ROUNDS = 2;

/** Rows of a decode batch: none of them may meet in the ring. */
const MIN_RING = 64;

/** Rows that replicas of such a sequence take; undefined: its sparse layers exchange states. */
export function replicaRoom(
  { sparse, sparseExchange }: Pick<SequenceOpening, "sparse" | "sparseExchange">,
  { config, pages, exchange }: ReplicaBounds,
): ReplicaRoom | undefined {
  const chosen = exchange === "auto" ? sparseExchange ?? "states" : exchange;
  if (chosen === "states") return undefined;
  const ring = replicaRing(sparse);
  const perHead = sparse.heads === "query_head" ? sparse.budget * config.heads / config.kvHeads : sparse.budget;
  const least = roundedUp(MIN_ROUNDS * perHead);
  const fair = Math.floor(pages / SEQUENCES_AT_ONCE) * PAGE_TOKENS - ring;
  const store = Math.max(least, Math.min(roundedUp(Math.max(STORE_BUDGETS * sparse.budget, least)), fair));
  const fits = (ring + store) / PAGE_TOKENS <= pages && store <= MAX_REPLICA_SLOTS;
  return fits ? { ring, store } : undefined;
}

/** Rows of the ring, which holds what every selection of such a sequence contains unasked. */
export function replicaRing(sparse: Pick<SparseSettings, "budget" | "coverage">): number {
  return roundedUp(Math.max(MIN_RING, recentOf(sparse)));
}

/** Pages of a sequence's replicas. */
export function replicaPagesOf({ ring, store }: ReplicaRoom): number {
  return (ring + store) / PAGE_TOKENS;
}

function roundedUp(rows: number): number {
  return Math.ceil(rows / PAGE_TOKENS) * PAGE_TOKENS;
}
