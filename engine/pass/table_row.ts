/** One row of a row table: what a row of a sequence sees of one worker's slice. Knows positions and pages. */

import { neededMass } from "../../kernels/attention/mass.ts";
import type { TableRow } from "../../kernels/attention/row_table.ts";
import type { SequenceState } from "../kv/sequences.ts";
import { recentOf, SINKS } from "../layer_plan.ts";
import type { PageShare } from "../page_map.ts";
import { PAGE_TOKENS, type SparseSettings } from "../span.ts";

/** What a row at a position sees of a worker's slice. */
export function tableRow(
  { slot, open: { pageOffset } }: Pick<SequenceState, "slot" | "open">,
  position: number,
  { share: { map, index }, window, sparse }: {
    readonly share: PageShare;
    /** Positions that it sees at most; undefined: all before it. */
    readonly window: number | undefined;
    readonly sparse: SparseSettings | undefined;
  },
): TableRow {
  /** Local rows below a position. */
  const below = (end: number) => map.localRows(index, pageOffset, Math.max(0, end));
  const kvLimit = below(position + 1);
  const isMine = map.owner(pageOffset, Math.floor(position / PAGE_TOKENS)) === index;
  return {
    sequenceSlot: slot,
    kvFrom: window === undefined ? 0 : below(position + 1 - window),
    kvLimit,
    appendRow: isMine ? kvLimit - 1 : undefined,
    selected: sparse?.budget ?? 0,
    coverage: sparse?.coverage === undefined ? undefined : neededMass(sparse.coverage),
    setShape: sparse?.heads ?? "kv_head",
    sinks: sparse === undefined ? 0 : below(Math.min(SINKS, position + 1)),
    recent: sparse === undefined ? 0 : kvLimit - below(position + 1 - recentOf(sparse)),
  };
}
