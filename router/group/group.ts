/**
 * The workers of a group, as one: what the scheduler runs steps on.
 * Knows workers and their capacity; knows nothing of requests.
 */

import type { EngineInfo } from "../../engine/engine_info.ts";
import type { LateMasks, SequenceId, Step, StepResult } from "../../engine/span.ts";

/** What the service reports about the model it serves; put together from what its workers report once they have loaded it. */
export interface ModelInfo extends EngineInfo {
  /** Name under which clients ask for it. */
  readonly id: string;
  /** Pages of each worker's slice, in the order of the workers; `kvPages` is their sum. */
  readonly slices: readonly number[];
  /** Pages that each of them has at least for copies of what the others hold; 0: nothing is copied. */
  readonly copyPages: number;
  /** Each worker's GPU, in the same order; `adapter` is the first. */
  readonly adapters: readonly string[];
}

/** Where a group is in its life. */
export type GroupState =
  /** The reason says what keeps it from loading; absent while it does load. */
  | {
    readonly kind: "loading";
    readonly progress: number;
    readonly reason?: string;
    /** What it served before, and is likely to serve again; absent before it has formed for the first time. */
    readonly model?: ModelInfo;
    /** The epoch before was ended on purpose. */
    readonly isPlanned?: true;
  }
  | { readonly kind: "ready"; readonly epoch: number; readonly model: ModelInfo; readonly isPlanned?: true }
  | { readonly kind: "broken"; readonly reason: string }
  | { readonly kind: "closed" };

/** The model that requests may count on: of a group that is ready, or that forms again and is waited for. */
export function modelInService(state: GroupState): ModelInfo | undefined {
  return state.kind === "ready" || state.kind === "loading" ? state.model : undefined;
}

/** What a select layer chose last for a sequence. */
export interface ChosenPositions {
  readonly layer: number;
  /** Of the row that it was chosen for. */
  readonly position: number;
  /** Global positions, ascending; one list for each set of heads. */
  readonly sets: readonly Uint32Array[];
}

/** What was chosen last for each sequence; for those that ended too, for a while. */
export interface SelectionSource {
  /** By layer; empty when nothing was chosen, or nothing is remembered. */
  of(sequence: SequenceId): readonly ChosenPositions[];
}

/** What the scheduler needs from the workers of a group. */
export interface Group {
  readonly state: GroupState;
  /** Steps that may run at a time, at least one. */
  readonly stepsInFlight: number;
  /** What select layers chose last; undefined when it is not remembered. */
  readonly selections?: SelectionSource;
  /** Calls back on every change of state, until `close`. */
  onState(listener: (state: GroupState) => void): void;
  /**
   * Runs one step on all workers; results come in the order of the calls.
   * @param late of a step with spans whose masks follow; never rejects
   * @throws {CodedError} `worker_lost` or `deadline_exceeded`: the group is broken, its epoch over, every sequence gone;
   * any other code: the step was refused and changed nothing.
   */
  run(step: Step, traceparents: readonly string[], late?: LateMasks): Promise<StepResult>;
  close(): Promise<void>;
}
