/**
 * A group of worker processes for `bench`: what sessions driven by hand run on, with the wire between them as in service.
 * Knows how to start and end a group; knows nothing of what is measured.
 */

import { at } from "../../../kernels/at.ts";
import type { ModelSource } from "../../../engine/engine.ts";
import { type ModelConfig, readModelConfig } from "../../../engine/model/model_config.ts";
import { presetNamed } from "../../../engine/model/presets.ts";
import { PageMap } from "../../../engine/page_map.ts";
import type { CopyRoom } from "../../../engine/kv/copy_plan.ts";
import type { SparseExchange } from "../../../engine/replica_plan.ts";
import { SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { PAGE_TOKENS } from "../../../engine/span.ts";
import { type GpuChoice, openGpu } from "../../../kernels/choose_provider.ts";
import { pagesWithin } from "../../scheduling/capacity.ts";
import type { QuantizedDType } from "../../../kernels/weights/format.ts";
import { modelSource, nameOf } from "../../model_choice.ts";
import { RequestError } from "../../errors.ts";
import type { Group, ModelInfo } from "../../group/group.ts";
import { type KvTokens, resolveWorkers } from "../../host/worker_config.ts";
import type { Terminal } from "../../terminal.ts";
import type { WorkerGroup } from "../../group/worker_group.ts";
import { openGroup } from "../../group/open_group.ts";
import { describePlan, planWorkers } from "../../group/worker_plan.ts";

/** A loaded group; `close` ends its processes. */
export interface BenchGroup {
  readonly info: ModelInfo;
  /** The model's shape, which info do not hold. */
  readonly config: ModelConfig;
  /** Of the workers. */
  readonly map: PageMap;
  /** Runs the steps of a scheduler. */
  readonly group: Group;
  /** Opens sessions on the group; a scheduler must not use it at the same time. */
  readonly host: SessionHost;
  /** Of each worker, in words; see `describePlan`. */
  readonly places: readonly (string | undefined)[];
  /** Where on the page map the longest sequence starts, and its tokens. */
  readonly longest: { readonly pageOffset: number; readonly tokens: number };
  close(): Promise<void>;
}

/** The flags that choose a model and its workers. */
export interface BenchModel {
  readonly model: string | undefined;
  readonly random: string | undefined;
  readonly quantize: QuantizedDType | undefined;
  readonly kvTokens: readonly KvTokens[];
  readonly shareGpu: boolean;
  readonly gpu: GpuChoice;
  readonly copies: CopyRoom;
  readonly sparseExchange: SparseExchange;
}

/** Follows a group while it loads. */
export interface GroupListener {
  readonly onProgress: (fraction: number) => void;
  /** Lines for the operator: what workers report, and why they fail. */
  readonly log: (line: string) => void;
}

/** Reports on a terminal. */
export function listenerOn(terminal: Terminal): GroupListener {
  return {
    onProgress: (fraction) => terminal.progress("weights", fraction),
    log: (line) => terminal.error(line),
  };
}

/**
 * Starts so many workers and waits until they are loaded.
 * @throws {EngineError} `invalid_model`, `unsupported_model` when there is no such model
 * @throws {RequestError} `group_unavailable` with the reason when they cannot load the model
 */
export async function openBenchGroup(
  flags: BenchModel,
  workers: number,
  { onProgress, log }: GroupListener,
): Promise<BenchGroup> {
  const { shareGpu, gpu, kvTokens, copies, sparseExchange } = flags;
  const model = modelSource(flags);
  // A list of capacities is for the largest group; smaller ones take its beginning.
  const own = kvTokens.length === 1 ? kvTokens : kvTokens.slice(0, workers);
  const config = await configOf(model);
  const plans = await planWorkers(resolveWorkers({ workers, shareGpu, gpu, kvTokens: own }));
  const modelId = model.quantize === undefined ? nameOf(model) : `${nameOf(model)} ${model.quantize}`;
  const group = openGroup(plans, { model, modelId, copies, sparseExchange, log });
  try {
    const info = await loaded(group, onProgress);
    const map = new PageMap(info.slices);
    const host = new SessionHost({ info: info, run: (step) => group.run(step, []) }, map);
    const longest = longestOn(map, info);
    return { info, config, map, group, host, places: plans.map(describePlan), longest, close: () => group.close() };
  } catch (error) {
    await group.close();
    throw error;
  }
}

async function configOf(model: ModelSource): Promise<ModelConfig> {
  return "random" in model ? presetNamed(model.random).config : await readModelConfig(model.directory);
}

function longestOn(map: PageMap, { slices, maxPositions }: ModelInfo): BenchGroup["longest"] {
  const offsets = Array.from({ length: map.period }, (_, offset) => offset);
  const pages = offsets.map((offset) => pagesWithin(map, { offset, pages: 0 }, slices));
  const most = Math.max(...pages);
  return { pageOffset: pages.indexOf(most), tokens: Math.min(maxPositions, most * PAGE_TOKENS) };
}

/**
 * Waits until a group has loaded its model.
 * @throws {RequestError} `group_unavailable` with the reason when it cannot
 */
export function loaded(group: WorkerGroup, onProgress: (fraction: number) => void): Promise<ModelInfo> {
  const { promise, resolve, reject } = Promise.withResolvers<ModelInfo>();
  group.onState((state) => {
    if (state.kind === "loading") onProgress(state.progress);
    if (state.kind === "ready") resolve(state.model);
    if (state.kind === "broken") {
      reject(new RequestError("group_unavailable", `Cannot measure: ${state.reason}`));
    }
  });
  return promise;
}

const READ_BACKS = 101;

/** Median latency in milliseconds of a small read-back from an idle queue on this process's adapter. */
export async function measureReadBack(choice: GpuChoice): Promise<number> {
  const gpu = await openGpu({ choice });
  try {
    const tensor = gpu.tensor("read back", "u32", [4]);
    const times: number[] = [];
    for (let i = 0; i < READ_BACKS; i++) {
      const start = performance.now();
      await gpu.read([{ tensor }]);
      times.push(performance.now() - start);
    }
    return at(times.sort((a, b) => a - b), READ_BACKS >> 1);
  } finally {
    await gpu.close();
  }
}
