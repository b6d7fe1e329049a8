/**
 * One model on one GPU: weights, a KV slice, the open sequences, and the running of steps. The only door of this room
 * for workers. Knows tensors and positions; knows nothing of the network or of other workers.
 */

import { Gpu } from "../kernels/gpu.ts";
import { Commands } from "../kernels/pipeline.ts";
import { Scratch } from "../kernels/scratch.ts";
import { type Batch, planBatches, type SequenceState } from "./batch.ts";
import { readCalibration } from "./calibration.ts";
import { EngineError } from "./errors.ts";
import { ALONE } from "./exchange.ts";
import type { EngineFacts } from "./facts.ts";
import { forward, type Model } from "./forward.ts";
import { allocateSlice } from "./kv_capacity.ts";
import { type Calibration, layerRoles } from "./layer_plan.ts";
import { type ModelConfig, readModelConfig } from "./model_config.ts";
import { SlicePacer } from "./pacer.ts";
import { presetNamed } from "./presets.ts";
import { ropeFrequencies } from "./rope.ts";
import { openSafetensors } from "./safetensors.ts";
import { copyRows, draw, type DrawnRow, drawnRows, type RowScores, score } from "./sampler.ts";
import type { Open, SequenceId, Span, SpanResult, Step, StepResult } from "./span.ts";
import { freeWeights, loadWeights, randomWeights, type Weights } from "./weights.ts";

/** Where a model comes from: a Hugging Face directory, or random weights of a named shape. */
export type ModelSource = { readonly directory: string } | { readonly random: string };

/** How to open an engine. */
export interface EngineOptions {
  readonly model: ModelSource;
  /** Positions that the KV slice holds; `auto` takes what the device can spare. */
  readonly kvTokens: number | "auto";
}

interface Loaded {
  readonly config: ModelConfig;
  readonly calibration: Calibration | undefined;
  readonly weights: Weights;
  readonly digest: string;
}

/** A loaded model. Steps run one at a time. */
export class Engine {
  readonly config: ModelConfig;
  #facts: EngineFacts;
  #model: Model;
  readonly #sequences = new Map<SequenceId, SequenceState>();
  #closed = false;

  private constructor(model: Model, facts: EngineFacts) {
    this.#model = model;
    this.config = model.config;
    this.#facts = facts;
  }

  get facts(): EngineFacts {
    return this.#facts;
  }

  /**
   * Opens the GPU and loads a model.
   * @throws {GpuError} `no_adapter`, `out_of_gpu_memory`
   * @throws {EngineError} `invalid_model`, `unsupported_model`
   */
  static async open(
    options: EngineOptions,
    onProgress: (doneBytes: number, totalBytes: number) => void = () => {},
  ): Promise<Engine> {
    const gpu = await Gpu.open();
    try {
      const commands = new Commands(gpu);
      const { config, calibration, weights, digest } = await load(commands, options, onProgress);
      const slice = await allocateSlice(gpu, config, options.kvTokens);
      const model: Model = {
        commands,
        scratch: new Scratch(commands),
        config,
        weights,
        slice,
        roles: undefined,
        frequencies: ropeFrequencies(config),
        exchange: ALONE,
        pacer: new SlicePacer(),
      };
      const engine = new Engine(model, {
        digest,
        layers: config.layers,
        maxPositions: config.maxPositions,
        vocabSize: config.vocabSize,
        parameters: weights.parameters,
        roles: undefined,
        selectLayers: [],
        sparse: undefined,
        adapter: gpu.info.adapter,
        software: gpu.info.software,
        kvPages: slice.pages,
      });
      if (calibration !== undefined) engine.calibrate(calibration);
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
    const roles = layerRoles(this.config.layers, selectLayers);
    this.#model = { ...this.#model, roles };
    this.#facts = { ...this.#facts, roles, selectLayers, sparse: { budget, sparseFrom } };
  }

  /**
   * Runs one step. A refused step changes nothing but the sequences it opened or released before the fault was found.
   * @throws {EngineError} `invalid_step`
   * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
   */
  async run(step: Step): Promise<StepResult> {
    const start = performance.now();
    for (const sequence of step.release) this.#release(sequence);
    for (const open of step.open) this.#open(open);
    for (const span of step.spans) this.#admit(span);
    const batches = planBatches(step.spans, {
      slice: this.#model.slice,
      sequences: this.#sequences,
      window: this.config.slidingWindow,
    });
    const drawnPlaces: { span: number; row: DrawnRow }[] = [];
    const scores: { span: number; scores: RowScores }[] = [];
    const capacity = batches.reduce(
      (sum, { logits }) => sum + logits.filter(({ target }) => target === undefined).length,
      0,
    );
    const x = drawnRows(this.#model, capacity);
    for (const batch of batches) {
      const rows = await forward(this.#model, batch, step.index);
      const drawn = batch.logits.filter(({ target }) => target === undefined);
      copyRows(this.#model, { from: rows, to: x, rows: drawn.map(({ row }) => row), at: drawnPlaces.length });
      for (const { row, span } of drawn) {
        drawnPlaces.push({ span, row: this.#drawnRow(step.spans, { span, batch, row }) });
      }
      scores.push(...await this.#score(rows, batch));
    }
    this.#model.commands.submit();
    const encoded = performance.now();
    const tokens = await draw(this.#model, x, drawnPlaces.map(({ row }) => row));
    if (tokens.length === 0) await this.#model.commands.gpu.read([]);
    const end = performance.now();
    const drawnBySpan = new Map(drawnPlaces.map(({ span }, i) => [span, tokens[i]]));
    return {
      index: step.index,
      spans: step.spans.map((span, i): SpanResult => {
        const drawn = drawnBySpan.get(i);
        const rows = scores.filter((entry) => entry.span === i).map((entry) => entry.scores);
        return {
          sequence: span.sequence,
          ...(drawn && { token: drawn.token }),
          ...(drawn?.logprobs && { logprobs: drawn.logprobs }),
          ...(span.logits === "all" && { scores: joinScores(rows) }),
        };
      }),
      timing: { encodeMs: encoded - start, waitMs: end - encoded, totalMs: end - start },
    };
  }

  /** Frees everything on the GPU; to be called once, after the last step. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { commands, scratch, slice, weights } = this.#model;
    scratch.close();
    slice.close();
    freeWeights(commands, weights);
    await commands.gpu.close();
  }

  #open(open: Open): void {
    this.#model.slice.open(open.sequence, open.prefixPages);
    this.#sequences.set(open.sequence, { open, tokens: [...open.prefixTokens] });
  }

  #release(sequence: SequenceId): void {
    this.#model.slice.release(sequence);
    this.#sequences.delete(sequence);
  }

  /** Checks a span against the state, takes its pages, remembers its tokens. */
  #admit(span: Span): void {
    const { slice, roles } = this.#model;
    const sequence = this.#sequences.get(span.sequence);
    const refuse = (why: string) =>
      new EngineError("invalid_step", `Cannot run a span of sequence ${span.sequence}: ${why}`);
    if (sequence === undefined) throw refuse("it is not open");
    const end = span.from + span.tokens.length;
    if (span.tokens.length === 0) throw refuse("it has no rows");
    if (end > this.config.maxPositions) {
      throw refuse(`its end ${end} exceeds the context of ${this.config.maxPositions}`);
    }
    const token = span.tokens.find((id) => id >= this.config.vocabSize);
    if (token !== undefined) throw refuse(`token ${token} is not below the vocabulary's ${this.config.vocabSize}`);
    if (span.kind === "decode" && span.attention === "sparse") {
      if (roles === undefined) throw refuse("it is sparse, but the model has no calibration");
      if (span.tokens.length !== 1) throw refuse(`it is sparse and has ${span.tokens.length} rows, not one`);
    }
    slice.extend(span.sequence, span.newPages);
    if (end > slice.capacityOf(span.sequence)) {
      throw refuse(`its end ${end} exceeds the ${slice.capacityOf(span.sequence)} positions of its pages`);
    }
    sequence.tokens.length = Math.min(sequence.tokens.length, span.from);
    span.tokens.forEach((id, i) => sequence.tokens[span.from + i] = id);
  }

  #drawnRow(spans: readonly Span[], place: { span: number; batch: Batch; row: number }): DrawnRow {
    const sequence = this.#sequences.get(spans[place.span]?.sequence ?? 0);
    const position = place.batch.positions[place.row];
    if (sequence === undefined || position === undefined) {
      throw new EngineError("invalid_step", `Cannot draw after row ${place.row}: it is not in its batch`);
    }
    return { sequence, position };
  }

  async #score(
    rows: Awaited<ReturnType<typeof forward>>,
    batch: Batch,
  ): Promise<{ span: number; scores: RowScores }[]> {
    const bySpan = new Map<number, { row: number; target: number }[]>();
    for (const { row, span, target } of batch.logits) {
      if (target === undefined) continue;
      const list = bySpan.get(span) ?? [];
      bySpan.set(span, list);
      list.push({ row, target });
    }
    const found: { span: number; scores: RowScores }[] = [];
    for (const [span, list] of bySpan) {
      found.push({ span, scores: await score(this.#model, rows, { rows: list, product: batch.product }) });
    }
    return found;
  }
}

async function load(
  commands: Commands,
  { model }: EngineOptions,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): Promise<Loaded> {
  if ("random" in model) {
    const { config, calibration } = presetNamed(model.random);
    const weights = await randomWeights(commands, config, 1);
    return { config, calibration, weights, digest: `random:${model.random}` };
  }
  const config = await readModelConfig(model.directory);
  using files = await openSafetensors(model.directory);
  const calibration = await readCalibration(model.directory, config.layers);
  const weights = await loadWeights(commands, config, { files, onProgress });
  return { config, calibration, weights, digest: await files.digest() };
}

function joinScores(parts: readonly RowScores[]): RowScores {
  const rows = parts.reduce((sum, { argmax }) => sum + argmax.length, 0);
  const joined = { logprob: new Float32Array(rows), argmax: new Uint32Array(rows) };
  let at = 0;
  for (const part of parts) {
    joined.logprob.set(part.logprob, at);
    joined.argmax.set(part.argmax, at);
    at += part.argmax.length;
  }
  return joined;
}
