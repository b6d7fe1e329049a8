/**
 * The step after one that still runs, where it is certain without that one's result: all sequences decode one more row, or are
 * corrected, and the newest token of each has not left the GPU. A token that ends an answer shows up one step too late; its row
 * is thrown away then. Knows plans and sequences; whatever else there is to do waits for a step without another before it.
 */

import type { SequenceId, Span } from "../../engine/span.ts";
import { NO_LOAD } from "./cost_model.ts";
import { decodeWork, type NextWork } from "./decode_work.ts";
import type { Roster } from "./roster.ts";
import type { Sequence } from "./sequence.ts";
import type { Plan, PlannerParts } from "./step_planner.ts";
import type { PlannedStep } from "./steps_in_flight.ts";
import type { Work } from "./work.ts";
import { loadWith } from "./work_load.ts";

/**
 * What the sequences of a plan do after it.
 * @returns undefined when anything else may have to be done first
 */
export function workAfterAll({ spans }: Plan, { waiting, running }: Roster): readonly NextWork[] | undefined {
  // Another sequence is to be admitted, prefilled, or given its turn.
  if (waiting.length > 0 || running.length !== spans.length || spans.length === 0) return undefined;
  const next: NextWork[] = [];
  for (const { sequence, work } of spans) {
    const isCertain = sequence.masks?.areInTime !== false && !sequence.over && !sequence.events.full;
    const after = isCertain ? sequence.workAfter(work) : undefined;
    if (after === undefined) return undefined;
    next.push({ sequence, work: after });
  }
  return next;
}

/**
 * Plans what the sequences of a step do after it; takes no page from anyone.
 * @returns undefined when that would be needed, or anything else, or a correction would have to wait or to be cut for time
 */
export function planAhead(
  { plan, ledger }: Pick<PlannedStep, "plan" | "ledger">,
  { roster, costs, limits }: Pick<PlannerParts, "roster" | "costs" | "limits">,
): Plan | undefined {
  const next = workAfterAll(plan, roster);
  if (next === undefined) return undefined;
  const extraMs = next.length > 1 ? limits.sharedPrefillMs : limits.alonePrefillMs;
  const { works } = decodeWork(next, costs, extraMs);
  if (next.some(({ sequence, work }) => works.get(sequence)?.rows !== work.rows)) return undefined;
  const endOf = ({ from, rows }: Work) => from + rows;
  if (!ledger.hasRoomFor(next.map(({ sequence, work }) => ({ sequence, end: endOf(work) })))) return undefined;
  let load = NO_LOAD;
  const spans = next.flatMap(({ sequence, work }) => {
    if (sequence.id === undefined) return [];
    load = loadWith(load, sequence, work);
    const newPages = ledger.grow(sequence, endOf(work));
    return [{ sequence, work, span: sampledSpan(sequence, sequence.id, { work, newPages }) }];
  });
  return { spans, load };
}

/** Whether drafts are verified in a plan: what they come to is waited for. */
export function verifies({ spans }: Plan): boolean {
  return spans.some(({ span }) => span.logits === "audit");
}

function sampledSpan(
  sequence: Sequence,
  id: SequenceId,
  { work, newPages }: { readonly work: Work; readonly newPages: readonly number[] },
): Span {
  if (work.kind === "correction") {
    const span = sequence.span(id, work, newPages);
    return { ...span, tokens: Uint32Array.of(...span.tokens, 0), sampled: true };
  }
  const attention = work.kind === "sparse" ? "sparse" : "dense";
  const row = {
    from: work.from,
    tokens: new Uint32Array(1),
    newPages: Uint32Array.from(newPages),
    logits: "last",
  } as const;
  const masksFollow = sequence.masks && { masksFollow: true as const };
  return { kind: "decode", attention, sequence: id, ...row, sampled: true, ...masksFollow };
}
