/** What an engine learns when it joins a group. */

import type { Exchange } from "./exchange.ts";
import type { PageShare } from "./page_map.ts";
import type { SparseExchange } from "./replica_plan.ts";

/** A worker's place in a group, and how it reaches the others. */
export interface GroupPlace extends PageShare {
  readonly exchange: Exchange;
  /** Whether to use matrix units where there are any; all workers of a group do, or none. @default true */
  readonly matrix?: boolean;
  /** Whether the adapters and providers of all workers are the same, so that all compute the same bits. @default true */
  readonly alike?: boolean;
  /** Pages for replicas that every worker of the group has. @default those of this one */
  readonly replicaPages?: number;
  /** How sparse layers reach what other workers hold; the same for all workers of the group. @default "auto" */
  readonly sparseExchange?: SparseExchange;
}
