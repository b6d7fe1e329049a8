/** What the watchers of a sequence are sent. */

import type { SparseSettings } from "../../engine/span.ts";
import type { ChosenPositions } from "../group/group.ts";

/** How a sequence lies on the workers and how its rows attend; sent first, and again after it was rebuilt elsewhere. */
export interface TideLayout {
  readonly kind: "layout";
  readonly promptTokens: number;
  /** Positions of one page. */
  readonly pageTokens: number;
  /** Worker that holds each page; page i is with entry i modulo the length. */
  readonly owners: readonly number[];
  readonly layers: number;
  readonly selectLayers: readonly number[];
  readonly sparse: SparseSettings;
  /** First positions, and newest ones, that every selection contains. */
  readonly sinks: number;
  readonly recent: number;
}

/** What a decoded row, or a correction, has read. */
export interface TideRow {
  readonly kind: "row";
  /** Of the first row. */
  readonly position: number;
  /** Above 1 only for corrections. */
  readonly rows: number;
  readonly attention: "dense" | "sparse" | "correction";
  /** By select layer; empty unless sparse: the others read everything. */
  readonly layers: readonly ChosenPositions[];
  /** Rows since the one sent before that were not sent, because they came faster than the feed sends. */
  readonly skipped: number;
}

/** What a watcher gets, in order. */
export type TideEvent = TideLayout | TideRow;
