/** A new sequence, and what its reader holds of it: both stay the same when the sequence is handed over. */

import { EventQueue } from "./event_queue.ts";
import type { Generation } from "./generation.ts";
import { Sequence } from "./sequence.ts";
import type { SequenceParts } from "./sequence_parts.ts";

/** @param parts.maxUnread events that may wait for a slow reader before the sequence is paused */
export function beginSequence(
  { maxUnread, ...parts }: Omit<SequenceParts, "events"> & { readonly maxUnread: number },
): { readonly sequence: Sequence; readonly generation: Generation } {
  const events: EventQueue = new EventQueue(maxUnread, {
    onRoom: () => sequence.owner?.wake(),
    onLeave: () => sequence.owner?.cancel(),
  });
  const sequence: Sequence = new Sequence({ ...parts, events });
  const generation: Generation = {
    [Symbol.asyncIterator]: () => events,
    usage: () => sequence.usage(),
    cancel: () => sequence.owner?.cancel(),
  };
  return { sequence, generation };
}
