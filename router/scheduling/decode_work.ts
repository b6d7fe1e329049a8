/**
 * What each sequence that decodes does in the next step: a row, a correction or the first part of one, or nothing while it
 * waits for its correction. Time decides how a correction is spread over steps, never whether a row comes before it:
 * which rows are corrected when depends on the sequence alone. Knows work and predicted time; knows nothing of pages.
 */

import { type CostModel, NO_LOAD } from "./cost_model.ts";
import type { Sequence } from "./sequence.ts";
import type { Work } from "./work.ts";
import { loadWith, rowsThatFit } from "./work_load.ts";

/** What is to be done, and what the rows among it take. */
export interface DecodeWork {
  /** By sequence; those that wait are left out. */
  readonly works: ReadonlyMap<Sequence, Work>;
  /** Predicted time of the step if it made no corrections. */
  readonly rowsMs: number;
}

/** What a sequence is to do next. */
export interface NextWork {
  readonly sequence: Sequence;
  readonly work: Work;
}

/**
 * Shares out the time that corrections may add to a step.
 * @param next of the sequences that decode, those that waited longest first
 * @param extraMs that corrections may add to the step of their rows
 */
export function decodeWork(next: readonly NextWork[], costs: CostModel, extraMs: number): DecodeWork {
  const rows = next.filter(({ work }) => work.kind !== "correction");
  const works = new Map(rows.map(({ sequence, work }) => [sequence, work]));
  let load = rows.reduce((sum, { sequence, work }) => loadWith(sum, sequence, work), NO_LOAD);
  const rowsMs = costs.predictMs(load);
  let isFirst = true;
  for (const { sequence, work } of next.filter(({ work }) => work.kind === "correction")) {
    const fitting = rowsThatFit(costs, load, { sequence, work, latestMs: rowsMs + extraMs });
    // The first one goes ahead however long it takes: what never fits would otherwise never be done.
    if (fitting === 0 && !isFirst) continue;
    const planned = { ...work, rows: Math.max(1, fitting) };
    works.set(sequence, planned);
    load = loadWith(load, sequence, planned);
    isFirst = false;
  }
  return { works, rowsMs };
}
