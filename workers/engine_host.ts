/** What a worker needs from an engine; owned here, so that a worker can be tested around an engine without a GPU. */

import type { EngineFacts } from "../engine/facts.ts";
import type { Step, StepResult } from "../engine/span.ts";

/** Where the weights come from: a model directory, or random ones in the shape of a preset. */
export type ModelSource = { readonly directory: string } | { readonly random: string };

/** What a worker is asked to load. */
export interface LoadRequest {
  readonly model: ModelSource;
  /** Capacity of the KV slice in tokens; `auto` probes the device. */
  readonly kvTokens: number | "auto";
}

/** A loaded engine. */
export interface EngineHandle {
  readonly facts: EngineFacts;
  /**
   * Runs one step; the worker never calls it again before it has settled.
   * @throws {CodedError} the step is refused and has changed nothing; anything else, and `device_lost`, is fatal
   */
  run(step: Step): Promise<StepResult>;
  /** Lets a running step end, then frees the weights and the KV slice. */
  close(): Promise<void>;
}

/**
 * Loads a model; `onProgress` may be called as often as it likes.
 * @throws {CodedError} when the model or the device is at fault, so that another try would end the same
 */
export type OpenEngine = (
  load: LoadRequest,
  onProgress: (doneBytes: number, totalBytes: number) => void,
) => Promise<EngineHandle>;
