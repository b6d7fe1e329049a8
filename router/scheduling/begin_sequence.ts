/** A new sequence, and what its reader holds of it: both stay the same when the sequence is handed over. */

import { EventQueue } from "./event_queue.ts";
import type { Generation } from "./generation.ts";
import { Sequence } from "./sequence.ts";
import type { SequenceParts } from "./sequence_parts.ts";

/** What a sequence begins with. */
export interface BeginningParts extends Omit<SequenceParts, "events" | "arrival"> {
  /** Gives it its place in the order of arrival. */
  readonly arrivals: () => number;
  /** Events that may wait for a slow reader before the sequence is paused. */
  readonly maxUnread: number;
}

/** Begins a sequence that has no owner yet. */
export function beginSequence(
  { maxUnread, arrivals, request, model, policy, masks }: BeginningParts,
): { readonly sequence: Sequence; readonly generation: Generation } {
  const events: EventQueue = new EventQueue(maxUnread, {
    onRoom: () => sequence.owner?.wake(),
    onLeave: () => sequence.owner?.cancel(),
  });
  const sequence: Sequence = new Sequence({ request, model, policy, masks, events, arrival: arrivals() });
  const generation: Generation = {
    [Symbol.asyncIterator]: () => events,
    usage: () => sequence.usage(),
    cancel: () => sequence.owner?.cancel(),
  };
  return { sequence, generation };
}
