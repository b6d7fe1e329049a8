/**
 * What penalties, biases and minimum length do to the rows of a block, placed in the step's state: a few words a row, however
 * long its context. Knows settings and rows; what occurred before them is counted on the GPU (`token_counts.ts`).
 */

import {
  ADJUSTED_WORDS,
  type AdjustedRow,
  type Entry,
  ENTRY_WORDS,
  type EntryRange,
  packAdjustedRows,
  packEntries,
} from "../../kernels/logits/adjust_logits.ts";
import { type CountUpdate, packUpdates, UPDATE_WORDS } from "../../kernels/logits/count_tokens.ts";
import { roomFor, type StatePart, type StepState } from "../pass/step_state.ts";
import type { DrawnRow } from "../row_batch.ts";
import { biasesOf, countsTokens, suppresses } from "./penalties.ts";
import type { TokenCounts } from "./token_counts.ts";

/** The adjustments of a block's rows. */
export interface PlacedAdjustments {
  /** u32 [count, ADJUSTED_WORDS] */
  readonly rows: StatePart;
  readonly count: number;
  /** u32 [·, ENTRY_WORDS] */
  readonly entries: StatePart;
  /** u32 [count, UPDATE_WORDS]: what is counted once the block has drawn; undefined: none of its rows counts. */
  readonly updates: { readonly table: StatePart; readonly count: number } | undefined;
}

/** Rows of a block, and the step that they are drawn in. */
export interface BlockRows {
  readonly rows: readonly DrawnRow[];
  /** Whether the step draws after no later row of the same span. */
  readonly isLast: (row: DrawnRow) => boolean;
  readonly step: number;
}

/** Consecutive rows of one sequence. */
type Group = readonly [first: DrawnRow, ...rest: DrawnRow[]];

/** Adds what adjusts the rows of a block to the state of their step; undefined: nothing does. */
export function placeAdjustments(
  counts: TokenCounts,
  state: StepState,
  { rows, ...step }: BlockRows,
): PlacedAdjustments | undefined {
  const table = new AdjustmentTable(counts);
  for (let row = 0; row < rows.length;) {
    const group = groupAt(rows, row);
    table.add(group, { ...step, row });
    row += group.length;
  }
  return table.place(state);
}

/** The rows from `first` on that belong to one sequence. */
function groupAt(rows: readonly DrawnRow[], first: number): Group {
  const [row, ...others] = rows.slice(first);
  if (row === undefined) throw new RangeError(`Cannot adjust row ${first}: there are ${rows.length}`);
  const end = others.findIndex(({ sequence }) => sequence !== row.sequence);
  return [row, ...(end < 0 ? others : others.slice(0, end))];
}

/** The adjustments of a block in the making. */
class AdjustmentTable {
  readonly #counts: TokenCounts;
  readonly #rows: AdjustedRow[] = [];
  readonly #entries: Entry[] = [];
  readonly #updates: CountUpdate[] = [];

  constructor(counts: TokenCounts) {
    this.#counts = counts;
  }

  /** @param input.row of the first, in the block */
  add(group: Group, { row, isLast, step }: Omit<BlockRows, "rows"> & { readonly row: number }): void {
    const [{ sequence, position }] = group;
    const { open: { sampling } } = sequence;
    const { repetitionPenalty: repetition, presencePenalty: presence, frequencyPenalty: frequency } = sampling;
    const last = row + group.length - 1;
    const countsDrawn = isLast(group.at(-1) ?? group[0]);
    const counted = countsTokens(sampling)
      ? this.#counts.prepare({ sequence, position, rows: group.length, countsDrawn }, step)
      : undefined;
    const [from, to] = this.#enter(counted?.changes ?? []);
    const biasesBy = new Map<boolean, EntryRange>();
    for (const [i, { position }] of group.entries()) {
      const isSuppressed = suppresses(sequence.open, position);
      const biases = biasesBy.get(isSuppressed) ?? this.#enter(biasesOf(sampling, isSuppressed));
      biasesBy.set(isSuppressed, biases);
      if (counted === undefined && biases[0] === biases[1]) continue;
      const changes: EntryRange = [from, Math.max(from, to - (last - row - i))];
      this.#rows.push({ row: row + i, repetition, presence, frequency, place: counted?.place, changes, biases });
    }
    if (counted === undefined) return;
    const { place } = counted;
    this.#updates.push(...counted.changes.map((change) => ({ place, ...change })));
    if (countsDrawn) this.#updates.push({ place, token: { drawnAfter: last }, change: 1 });
  }

  place(state: StepState): PlacedAdjustments | undefined {
    if (this.#rows.length === 0) return undefined;
    const count = roomFor(this.#rows.length);
    const entries = roomFor(this.#entries.length);
    return {
      count,
      rows: state.add("adjusted rows", { data: packAdjustedRows(this.#rows, count), shape: [count, ADJUSTED_WORDS] }),
      entries: state.add("adjustments", {
        data: packEntries(this.#entries),
        shape: [entries, ENTRY_WORDS],
        room: entries * ENTRY_WORDS,
      }),
      updates: this.#rows.some(({ place }) => place !== undefined) ? this.#placeUpdates(state) : undefined,
    };
  }

  #placeUpdates(state: StepState): NonNullable<PlacedAdjustments["updates"]> {
    const count = roomFor(this.#updates.length);
    const data = packUpdates(this.#updates, count);
    return { table: state.add("count updates", { data, shape: [count, UPDATE_WORDS] }), count };
  }

  #enter(entries: readonly Entry[]): EntryRange {
    const from = this.#entries.length;
    this.#entries.push(...entries);
    return [from, this.#entries.length];
  }
}
