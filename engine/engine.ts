/**
 * One model on one GPU: weights, a KV slice, the open sequences, and the running of steps. All that workers use of
 * this room. Knows tensors and positions; knows nothing of the network or of other workers.
 */

import { type GpuChoice, openGpu } from "../kernels/choose_provider.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { QuantizedDType } from "../kernels/weights/format.ts";
import { rowProductCut } from "../kernels/products/row_tile.ts";
import { hasQuantizedParts } from "../kernels/weights/weight.ts";
import { describeShape } from "../kernels/provider.ts";
import { Commands } from "../kernels/pipeline.ts";
import { Scratch } from "../kernels/scratch.ts";
import { readCalibration } from "./model/calibration.ts";
import { DraftLogits } from "./logits/draft_logits.ts";
import { TokenCounts } from "./logits/token_counts.ts";
import { cheapCorrectionContext } from "./correction_cost.ts";
import { EngineError } from "./errors.ts";
import { checkFit } from "./fit.ts";
import { ALONE } from "./exchange.ts";
import { runFirstSteps } from "./first_steps.ts";
import type { EngineInfo } from "./engine_info.ts";
import type { LoadedModel } from "./loaded_model.ts";
import type { GroupPlace } from "./group_place.ts";
import { allocateSlice, type KvCapacity } from "./kv/kv_capacity.ts";
import { type KvRows, readKvRows } from "./kv/kv_inspection.ts";
import type { KvSlice } from "./kv/kv_slice.ts";
import { Replicas } from "./kv/replicas.ts";
import { type Calibration, layerRoles } from "./layer_plan.ts";
import { type ModelConfig, readModelConfig } from "./model/model_config.ts";
import { SlicePacer } from "./pass/pacer.ts";
import { PageMap } from "./page_map.ts";
import { presetNamed } from "./model/presets.ts";
import { localRopeFrequencies, ropeFrequencies } from "./model/rope.ts";
import { openTensors } from "./model/checkpoint.ts";
import { Sequences } from "./kv/sequences.ts";
import type { LateMasks, SequenceId, Step, StepResult } from "./span.ts";
import { StepRunner } from "./step_runner.ts";
import type { TileCache } from "./tile_cache.ts";
import { warmUp } from "./warm_up.ts";
import { freeWeights, loadWeights, randomWeights, type Weights } from "./model/weights.ts";

/** Where a model comes from: a Hugging Face directory or a GGUF file, or random weights of a named shape. */
export type ModelSource = ({ readonly directory: string } | { readonly random: string }) & {
  /** What plain matrices become on the GPU; files that are quantised already stay as they are. @default what they are */
  readonly quantize?: QuantizedDType;
  /** The longest context that is served, in tokens. @default what the model was made for */
  readonly contextTokens?: number;
};

/** How to open an engine. */
export interface EngineOptions extends KvCapacity {
  readonly model: ModelSource;
  /** Which way to the GPU. @default "auto" */
  readonly gpu?: GpuChoice | undefined;
  /** Gets a few lines: the GPU and the way to it, what the model needs and what there is. @default nothing */
  readonly log?: ((line: string) => void) | undefined;
  /** File that keeps what was measured of this machine's GPUs. @default none: measured at each warm-up */
  readonly tileCache?: string | undefined;
}

interface Loaded {
  readonly config: ModelConfig;
  readonly calibration: Calibration | undefined;
  readonly weights: Weights;
  readonly digest: string;
}

/** A loaded model. Steps run in order; see `StepRunner` for how many at a time. */
export class Engine {
  readonly config: ModelConfig;
  #info: EngineInfo;
  #model: LoadedModel;
  #sequences: Sequences;
  readonly #steps = new StepRunner(() => ({ model: this.#model, sequences: this.#sequences }));
  readonly #tileCache: TileCache;
  #closed = false;

  private constructor(model: LoadedModel, info: EngineInfo, tileCache: TileCache) {
    this.#tileCache = tileCache;
    this.#model = model;
    this.config = model.config;
    this.#info = info;
    this.#sequences = new Sequences(model.slice, model.share);
  }

  get info(): EngineInfo {
    return this.#info;
  }

  /**
   * Opens the GPU and loads a model.
   * @param onProgress counts the bytes of the weight files
   * @throws {GpuError} `no_adapter`, `provider_unavailable`; `out_of_gpu_memory`, before a weight is read, with what would fit
   * @throws {EngineError} `invalid_model`, `unsupported_model`; `kv_exhausted` when the KV slice cannot be that large
   */
  static async open(
    options: EngineOptions,
    onProgress: (doneBytes: number, totalBytes: number) => void = () => {},
  ): Promise<Engine> {
    const gpu = await openGpu({ choice: options.gpu, log: options.log });
    try {
      const commands = new Commands(gpu);
      const loaded = await load(commands, options, onProgress);
      const slice = await allocateSlice(gpu, loaded.config, options);
      const tileCache = { path: options.tileCache, log: options.log ?? (() => {}) };
      const model: LoadedModel = {
        commands,
        scratch: new Scratch(commands),
        config: loaded.config,
        weights: loaded.weights,
        slice,
        roles: undefined,
        frequencies: ropeFrequencies(loaded.config),
        localFrequencies: localRopeFrequencies(loaded.config),
        share: { index: 0, map: new PageMap([slice.pages]) },
        exchange: ALONE,
        replicas: undefined,
        pacers: { prefill: new SlicePacer(), blocks: new SlicePacer() },
        drafts: new DraftLogits(commands, loaded.config.vocabSize),
        counts: new TokenCounts(commands, loaded.config.vocabSize),
      };
      const engine = new Engine(model, infoOf(gpu, loaded, slice), tileCache);
      if (loaded.calibration !== undefined) engine.calibrate(loaded.calibration);
      return engine;
    } catch (error) {
      await gpu.close();
      throw error;
    }
  }

  /**
   * Plans the layers of sparse rows to come by a calibration in place of the model's own.
   * @throws {EngineError} `unsupported_model` when its layers do not fit the model
   */
  calibrate({ selectLayers, budget, sparseFrom }: Calibration): void {
    if (this.config.localLayers !== undefined) {
      throw new EngineError(
        "unsupported_model",
        "Cannot plan layers: sparse rows need layers that all see as far, and some of this model have a window of their own",
      );
    }
    const roles = layerRoles(this.config.layers, selectLayers);
    this.#model = { ...this.#model, roles };
    this.commands.dropPrograms();
    this.#info = { ...this.#info, roles, selectLayers, sparse: { budget, sparseFrom } };
  }

  /**
   * Chooses tiles and runs steps of each kind, so that later ones find their kernels compiled, and reports in `info` what
   * they take. To be called before any sequence is opened.
   * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
   */
  async warmUp(): Promise<void> {
    const measured = await runFirstSteps(this.#model, () => warmUp(this), this.#tileCache);
    this.#info = { ...this.#info, measured };
  }

  /** Records and submits for this engine's device; an exchange reads and writes tensors with it between steps' layers. */
  get commands(): Commands {
    return this.#model.commands;
  }

  /**
   * Takes a place in a group; all sequences are forgotten. A group of one uses `ALONE`.
   * @throws {EngineError} `invalid_step` while a step runs, or when the group's map gives this worker other pages than it has
   */
  join({ index, map, exchange, matrix = true, alike = true, replicaPages, sparseExchange = "auto" }: GroupPlace): void {
    if (this.#steps.isBusy) throw new EngineError("invalid_step", "Cannot join a group: a step is running");
    const pages = map.base(index + 1) - map.base(index);
    if (pages !== this.#model.slice.pages) {
      throw new EngineError(
        "invalid_step",
        `Cannot join a group: the map gives worker ${index} ${pages} pages, its slice has ${this.#model.slice.pages}`,
      );
    }
    const { slice } = this.#model;
    const share = { index, map };
    const pool = { slice, config: this.config, exchange: sparseExchange, share, alike };
    const replicas = map.workers === 1
      ? undefined
      : new Replicas({ ...pool, pages: replicaPages ?? slice.replicaPages });
    this.#model = { ...this.#model, share, exchange, replicas };
    this.commands.gpu.useMatrices(matrix);
    this.commands.dropPrograms();
    this.#sequences = new Sequences(this.#model.slice, this.#model.share);
    this.#model.drafts.close();
    this.#model.counts.close();
  }

  /**
   * Runs one step. A refused step changes nothing; one that fails on the GPU leaves sequences and pages as they were,
   * but the K/V rows from each of its spans' start on may hold anything.
   * @param late for the spans whose masks follow; what it rejects with ends the step as a failure on the GPU does
   * @throws {EngineError} `invalid_step`, `kv_exhausted`: refused
   * @throws {GpuError} `out_of_gpu_memory`: failed, and smaller steps may still run; `device_lost`
   */
  async run(step: Step, late?: LateMasks): Promise<StepResult> {
    if (this.#closed) throw new EngineError("invalid_step", `Cannot run step ${step.index}: the engine is closed`);
    return await this.#steps.run(step, late);
  }

  /**
   * Reads what this worker holds of an open sequence in one layer, between steps; for tests and debugging.
   * @throws {EngineError} `invalid_step` when the sequence is not open, there is no such layer, or a step runs
   */
  async readKvRows(sequence: SequenceId, layer: number): Promise<KvRows> {
    const state = this.#sequences.open.get(sequence);
    if (state === undefined || this.#steps.isBusy) {
      const why = state === undefined ? "it is not open" : "a step is running";
      throw new EngineError("invalid_step", `Cannot read sequence ${sequence}: ${why}`);
    }
    const { commands: { gpu }, config, slice, share } = this.#model;
    return await readKvRows({ gpu, config, slice, share }, state, layer);
  }

  /** Lets running steps end, and frees everything on the GPU. No step can run after it. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#steps.idle();
    const { commands, scratch, slice, weights, drafts, counts } = this.#model;
    for (const owner of [scratch, drafts, counts, slice]) owner.close();
    freeWeights(commands, weights);
    await commands.gpu.close();
  }
}

function infoOf(
  { info }: Gpu,
  { config, weights, digest }: Loaded,
  { pages: kvPages, replicaPages }: KvSlice,
): EngineInfo {
  return {
    digest,
    layers: config.layers,
    maxPositions: config.maxPositions,
    vocabSize: config.vocabSize,
    parameters: weights.parameters,
    roles: undefined,
    selectLayers: [],
    sparse: undefined,
    adapter: info.adapter,
    software: info.software,
    provider: info.provider,
    matrix: info.matrix.map(describeShape)[0],
    cheapCorrections: cheapCorrectionContext(config, {
      parameters: weights.parameters,
      software: info.software,
      matrix: rowProductCut(info) !== undefined,
      quantized: weights.layers.some(({ gateUp }) => hasQuantizedParts(gateUp)),
    }),
    measured: [],
    kvPages,
    replicaPages,
  };
}

/** @throws {EngineError} `unsupported_model` for a context beyond what the model was made for */
function withContext(config: ModelConfig, contextTokens: number | undefined): ModelConfig {
  if (contextTokens === undefined) return config;
  if (contextTokens <= config.maxPositions) return { ...config, maxPositions: contextTokens };
  throw new EngineError(
    "unsupported_model",
    `Cannot serve a context of ${contextTokens} tokens: the model was made for ${config.maxPositions}`,
  );
}

async function load(
  commands: Commands,
  { model, log = () => {}, ...capacity }: EngineOptions,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): Promise<Loaded> {
  const { quantize, contextTokens } = model;
  // Weights that were quantised are other weights.
  const suffix = quantize === undefined ? "" : `:${quantize}`;
  const fit = async (config: ModelConfig, tensors: Parameters<typeof checkFit>[1]["tensors"]) => {
    for (const line of await checkFit(commands.gpu, { config, tensors, quantize, contextTokens }, capacity)) log(line);
  };
  if ("random" in model) {
    const { calibration, ...preset } = presetNamed(model.random);
    const config = withContext(preset.config, contextTokens);
    await fit(config, undefined);
    const weights = await randomWeights(commands, config, { seed: 1, quantize });
    return { config, calibration, weights, digest: `random:${model.random}${suffix}` };
  }
  const config = withContext(await readModelConfig(model.directory), contextTokens);
  using files = await openTensors(model.directory);
  const calibration = await readCalibration(model.directory, config.layers);
  await fit(config, files.tensors);
  const weights = await loadWeights(commands, config, { files, quantize, onProgress });
  return { config, calibration, weights, digest: `${await files.digest()}${suffix}` };
}
