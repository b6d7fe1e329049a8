/** What a sequence is made of when its request arrives. */

import type { ModelInfo } from "../group/group.ts";
import type { AttentionPolicy } from "./attention_policy.ts";
import type { EventQueue } from "./event_queue.ts";
import type { GenerationRequest } from "./generation.ts";
import type { SequenceMasks } from "./sequence_masks.ts";

/** What a sequence is made of; all but the request is decided by the scheduler. */
export interface SequenceParts {
  readonly request: GenerationRequest;
  readonly model: ModelInfo;
  readonly policy: AttentionPolicy;
  readonly events: EventQueue;
  /** Of the answer, if it has a grammar. */
  readonly masks?: SequenceMasks | undefined;
  /** Place in the order of arrival. */
  readonly arrival: number;
}
