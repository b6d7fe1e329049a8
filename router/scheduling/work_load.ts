/**
 * What the work of sequences adds to a step, and how much of it the time allows. Knows work and predicted time; takes no
 * pages and plans nothing.
 */

import { contextOf, type CostModel, NO_LOAD, type StepLoad } from "./cost_model.ts";
import type { Sequence } from "./sequence.ts";
import type { Work } from "./work.ts";

/** A load with some work of a sequence more. */
export function loadWith(load: StepLoad, sequence: Sequence, { kind, from, rows }: Work): StepLoad {
  const kinds = [...new Set([...load.kinds, kind])];
  const context = contextOf(from, rows);
  switch (kind) {
    case "prefill":
      return { ...load, kinds, prefillRows: load.prefillRows + rows, prefillContext: load.prefillContext + context };
    case "rebuild":
    case "correction":
      return { ...load, kinds, consecutiveRows: load.consecutiveRows + rows, spanContext: load.spanContext + context };
    default:
      return {
        ...load,
        kinds,
        decodeRows: load.decodeRows + rows,
        decodeContext: load.decodeContext + sequence.nextContext(),
      };
  }
}

/** What a lossless round of so many rows takes a sequence that is alone: its drafts, and their verification. */
export function roundMs(costs: CostModel, sequence: Sequence, rows: number): number {
  const costOf = (work: Work) => costs.predictMs(loadWith(NO_LOAD, sequence, work));
  const draftMs = costOf({ kind: "sparse", from: sequence.cached, rows: 1 });
  return (rows - 1) * draftMs + costOf({ kind: "correction", from: sequence.exact, rows });
}

/** The first rows of some work that fit beside a load into a step of `latestMs`; 0 when not even one does. */
export function rowsThatFit(
  costs: CostModel,
  load: StepLoad,
  { sequence, work, latestMs }: { readonly sequence: Sequence; readonly work: Work; readonly latestMs: number },
): number {
  let fitting = 0;
  let tooMany = work.rows + 1;
  while (tooMany - fitting > 1) {
    const middle = (fitting + tooMany) >> 1;
    if (costs.predictMs(loadWith(load, sequence, { ...work, rows: middle })) <= latestMs) fitting = middle;
    else tooMany = middle;
  }
  return fitting;
}
