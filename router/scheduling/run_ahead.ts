/**
 * The step after one that still runs, where it is certain without that one's result: all sequences decode one more row, of a
 * token that has not left the GPU. A token that ends an answer shows up one step too late; its row is thrown away then.
 * Knows plans and sequences; whatever else there is to do waits for a step without another before it.
 */

import type { SequenceId, Span } from "../../engine/span.ts";
import { NO_LOAD } from "./cost_model.ts";
import type { PageLedger } from "./page_ledger.ts";
import type { Roster } from "./roster.ts";
import type { Sequence } from "./sequence.ts";
import type { Plan } from "./step_planner.ts";
import type { Work } from "./work.ts";
import { loadWith } from "./work_load.ts";

/** A row that a sequence is certain to need next. */
interface NextRow {
  readonly sequence: Sequence;
  readonly work: Work;
}

/**
 * The rows after those of a plan.
 * @returns undefined when anything else may have to be done first
 */
export function rowsAfter({ spans }: Plan, { waiting, running }: Roster): readonly NextRow[] | undefined {
  // Another sequence is to be admitted, prefilled, or given its turn.
  if (waiting.length > 0 || running.length !== spans.length || spans.length === 0) return undefined;
  const rows: NextRow[] = [];
  for (const { sequence, work } of spans) {
    const isCertain = sequence.masks?.areInTime !== false && !sequence.over && !sequence.events.full;
    const next = isCertain ? sequence.workAfter(work) : undefined;
    if (next === undefined) return undefined;
    rows.push({ sequence, work: next });
  }
  return rows;
}

/** Plans the rows, where there are any; takes no page from anyone. @returns undefined when that would be needed */
export function planRows(rows: readonly NextRow[] | undefined, ledger: PageLedger): Plan | undefined {
  if (rows === undefined) return undefined;
  if (!ledger.hasRoomFor(rows.map(({ sequence, work }) => ({ sequence, end: work.from + 1 })))) return undefined;
  let load = NO_LOAD;
  const spans = rows.flatMap(({ sequence, work }) => {
    if (sequence.id === undefined) return [];
    load = loadWith(load, sequence, work);
    const newPages = ledger.grow(sequence, work.from + 1);
    return [{ sequence, work, span: sampledSpan(sequence.id, work, { newPages, masks: sequence.masks }) }];
  });
  return { spans, load };
}

function sampledSpan(
  sequence: SequenceId,
  { kind, from }: Work,
  { newPages, masks }: { readonly newPages: readonly number[] } & Pick<Sequence, "masks">,
): Span {
  const attention = kind === "sparse" ? "sparse" : "dense";
  const row = { from, tokens: new Uint32Array(1), newPages: Uint32Array.from(newPages), logits: "last" } as const;
  return { kind: "decode", attention, sequence, ...row, sampled: true, ...(masks && { masksFollow: true }) };
}
