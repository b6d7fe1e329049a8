/** What a worker needs from an engine; owned here, so that a worker can be tested around an engine without a GPU. */

import type { ModelSource } from "../engine/engine.ts";
import type { CopyRoom } from "../engine/kv/copy_plan.ts";
import { kvBytesPerToken } from "../engine/kv/kv_slice.ts";
import type { ModelConfig } from "../engine/model/model_config.ts";
import type { GroupPlace } from "../engine/group_place.ts";
import type { EngineInfo } from "../engine/engine_info.ts";
import type { LateMasks, Step, StepResult } from "../engine/span.ts";
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
  /** Room for copies of what the others hold. @default "auto" */
  readonly copies?: CopyRoom;
  /** Workers of the group, as far as they are known. @default 2 */
  readonly groupWorkers?: number;
}

/** A loaded engine; that on a GPU is `Engine` itself. */
export interface WorkerEngine {
  readonly info: EngineInfo;
  /** Forgets all sequences, and takes this place from the next step on; never called while a step runs. */
  join(place: GroupPlace): void;
  /**
   * Runs one step; the worker calls it again before it has settled for a step that follows only, once.
   * @param late for the spans whose masks follow; asked for by the lead only
   * @throws {CodedError} the step is refused and has changed nothing; anything else, and `device_lost`, is fatal
   */
  run(step: Step, late?: LateMasks): Promise<StepResult>;
  /** Lets a running step end, then frees the weights and the KV slice. */
  close(): Promise<void>;
}

/** An engine with what its worker needs for exchanges. */
export interface HostedEngine {
  readonly engine: WorkerEngine;
  /** What the engine's tensors lie in. */
  readonly memory: ExchangeMemory;
  /** Keys and values of a row in one layer. */
  readonly keyBytes: number;
}

/**
 * Loads a model; `onProgress` may be called as often as it likes.
 * @throws {CodedError} when the model or the device is at fault, so that another try would end the same
 */
export type OpenEngine = (
  load: LoadRequest,
  onProgress: (doneBytes: number, totalBytes: number) => void,
) => Promise<HostedEngine>;

/** Makes an engine on a GPU fit for a worker. */
export function hostEngine(
  engine: WorkerEngine & { readonly commands: Commands; readonly config: ModelConfig },
): HostedEngine {
  const { commands, config } = engine;
  return { engine, memory: new GpuExchangeMemory(commands), keyBytes: kvBytesPerToken(config) / config.layers };
}
