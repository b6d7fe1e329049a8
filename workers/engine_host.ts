/** What a worker needs from an engine; owned here, so that a worker can be tested around an engine without a GPU. */

import type { Membership, ModelSource } from "../engine/engine.ts";
import type { EngineInfo } from "../engine/engine_info.ts";
import type { Step, StepResult } from "../engine/span.ts";
import type { Commands } from "../kernels/pipeline.ts";
import { type ExchangeMemory, GpuExchangeMemory } from "./exchange_memory.ts";

/** What a worker is asked to load. */
export interface LoadRequest {
  readonly model: ModelSource;
  /** Capacity of the KV slice in tokens; `auto` probes the device. */
  readonly kvTokens: number | "auto";
  /** Workers that share the memory of the worker's machine, itself included. @default 1 */
  readonly workersOnHost?: number;
  /** Whether the worker is one of several. @default false */
  readonly replicas?: boolean;
}

/** A loaded engine. */
export interface EngineHandle {
  readonly info: EngineInfo;
  /** What the engine's tensors lie in. */
  readonly memory: ExchangeMemory;
  /** Forgets all sequences, and takes this place from the next step on; never called while a step runs. */
  join(membership: Membership): void;
  /**
   * Runs one step; the worker calls it again before it has settled for a step that follows only, once.
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

/** An engine on a GPU, as the engine's room has it. */
type GpuEngine = Omit<EngineHandle, "memory"> & { readonly commands: Commands };

/** Makes an engine on a GPU fit for a worker. */
export function hostEngine(engine: GpuEngine): EngineHandle {
  return {
    info: engine.info,
    memory: new GpuExchangeMemory(engine.commands),
    join: (membership) => engine.join(membership),
    run: (step) => engine.run(step),
    close: () => engine.close(),
  };
}
