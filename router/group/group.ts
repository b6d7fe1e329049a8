/**
 * The workers of a group, as one: what the scheduler runs steps on.
 * Knows workers and their capacity; knows nothing of requests.
 */

import type { EngineFacts } from "../../engine/engine_info.ts";
import type { Step, StepResult } from "../../engine/span.ts";
import type { SelectionSource } from "../scheduling/selection_view.ts";

/** What the service tells about the model it serves; put together from what its workers report once they have loaded it. */
export interface ModelFacts extends EngineFacts {
  /** Name under which clients ask for it. */
  readonly id: string;
  /** Pages of each worker's slice, in the order of the workers; `kvPages` is their sum. */
  readonly slices: readonly number[];
  /** Each worker's GPU, in the same order; `adapter` is the first. */
  readonly adapters: readonly string[];
}

/** Where a group is in its life. */
export type GroupState =
  /** The reason says what keeps it from loading; absent while it does load. */
  | { readonly kind: "loading"; readonly progress: number; readonly reason?: string }
  | { readonly kind: "ready"; readonly epoch: number; readonly model: ModelFacts }
  | { readonly kind: "broken"; readonly reason: string }
  | { readonly kind: "closed" };

/** What the scheduler needs from whoever connects the workers. */
export interface Group {
  readonly state: GroupState;
  /** What select layers chose last; undefined when nobody remembers it. */
  readonly selections?: SelectionSource;
  /** Calls back on every change of state, until `close`. */
  onState(listener: (state: GroupState) => void): void;
  /**
   * Runs one step on all workers; one at a time.
   * @throws {CodedError} `worker_lost` or `deadline_exceeded`: the group is broken, its epoch over, every sequence gone;
   * any other code: the step was refused and changed nothing.
   */
  run(step: Step, traceparents: readonly string[]): Promise<StepResult>;
  close(): Promise<void>;
}
