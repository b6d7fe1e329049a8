/** What a sequence is made of when its request arrives. */

import type { CodedError } from "../../kernels/errors.ts";
import type { ModelInfo } from "../group/group.ts";
import type { AttentionPolicy } from "./attention_policy.ts";
import type { EventQueue } from "./event_queue.ts";
import type { GenerationRequest } from "./generation.ts";
import type { SequenceMasks } from "./sequence_masks.ts";

/** The scheduler that a sequence is with, as its reader, its masks and its timer reach it. */
export interface SequenceOwner {
  /** It may run again. */
  wake(): void;
  /** Its reader has left. */
  cancel(): void;
  fail(error: CodedError): void;
  /** Predicted time of a lossless round of it alone. */
  roundMs(rows: number): number;
}

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
