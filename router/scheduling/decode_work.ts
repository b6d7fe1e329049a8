/**
 * What each sequence that decodes does in the next step: a row, a correction or the first part of one, or nothing while it
 * waits for a correction that it cannot go on without. Knows work and predicted time; knows nothing of pages.
 */

import { type CostModel, NO_LOAD, type StepLoad } from "./cost_model.ts";
import type { Sequence } from "./sequence.ts";
import type { Work } from "./work.ts";
import { loadWith, rowsThatFit } from "./work_load.ts";

/** Share of the time of decoding that corrections may take which are made whenever they are cheap. */
const CHEAP_SHARE = 0.15;

/** What is to be done, and what the rows among it take. */
export interface DecodeWork {
  /** By sequence; who waits is left out. */
  readonly works: ReadonlyMap<Sequence, Work>;
  /** Predicted time of the step if it made no corrections. */
  readonly rowsMs: number;
}

/**
 * Shares out the time that corrections may add to a step.
 * @param sequences that decode, those who waited longest first
 * @param extraMs that corrections may add to the step of their rows
 */
export function decodeWork(sequences: readonly Sequence[], costs: CostModel, extraMs: number): DecodeWork {
  const all = sequences.reduce((load, sequence) => loadWith(load, sequence, rowOf(sequence)), NO_LOAD);
  const rowMs = costs.predictMs(all) / Math.max(1, sequences.length);
  const works = new Map<Sequence, Work>();
  const corrections: { readonly sequence: Sequence; readonly work: Work; readonly isDue: boolean }[] = [];
  let rows: StepLoad = NO_LOAD;
  for (const sequence of sequences) {
    const work = sequence.work();
    const welcome = sequence.welcomeCorrection();
    if (work.kind === "correction") corrections.push({ sequence, work, isDue: true });
    else if (
      work.kind === "sparse" && welcome !== undefined && isCheap(costs, all, { sequence, work: welcome, rowMs })
    ) {
      corrections.push({ sequence, work: welcome, isDue: false });
    } else {
      works.set(sequence, work);
      rows = loadWith(rows, sequence, work);
    }
  }
  const rowsMs = costs.predictMs(rows);
  let [load, isFirst] = [rows, true];
  for (const { sequence, work, isDue } of corrections) {
    const fitting = rowsThatFit(costs, load, { sequence, work, latestMs: rowsMs + extraMs });
    // The first one gets on however long it takes: what never fits would never be done, nor ever be measured.
    const mustStart = isFirst && (isDue || !costs.knows("correction"));
    const planned = fitting > 0 || mustStart ? { ...work, rows: Math.max(1, fitting) } : sequence.rowInstead();
    if (planned === undefined) continue;
    works.set(sequence, planned);
    load = loadWith(load, sequence, planned);
    isFirst &&= planned.kind !== "correction";
  }
  return { works, rowsMs };
}

/**
 * Whether a correction in place of a sparse row keeps to its share of the time, or must be tried to know what it takes.
 * Without matrix units a correction costs about as much a row however many rows it has: then it is cheap now or never.
 */
function isCheap(
  costs: CostModel,
  all: StepLoad,
  { sequence, work, rowMs }: { readonly sequence: Sequence; readonly work: Work; readonly rowMs: number },
): boolean {
  if (!costs.knows("correction")) return true;
  const extraMs = costs.predictMs(loadWith(all, sequence, work)) - costs.predictMs(all);
  return extraMs <= CHEAP_SHARE * (extraMs + work.rows * rowMs);
}

/** The decode row that a sequence would compute if it were not for corrections. */
function rowOf(sequence: Sequence): Work {
  const work = sequence.work();
  return work.kind === "correction" ? { kind: "sparse", from: sequence.cached, rows: 1 } : work;
}
