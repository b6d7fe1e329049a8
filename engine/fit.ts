/**
 * Whether a model fits on a GPU, before its weights are read: what weights, working memory and keys and values need, beside
 * what the device can still hold. Knows bytes; loads nothing.
 */

import { GpuError } from "../kernels/errors.ts";
import type { Gpu } from "../kernels/gpu.ts";
import { isQuantized, type QuantizedDType, weightBytes, type WeightDType } from "../kernels/weights/format.ts";
import { isBlockType, keptAs } from "../kernels/weights/source_types.ts";
import { type CopyPlan, leastCopyPages, ownPages } from "./kv/copy_plan.ts";
import { freeBytes } from "./kv/free_memory.ts";
import { checkKvTokens, copyPlanOf, type KvCapacity } from "./kv/kv_capacity.ts";
import { kvBytesPerToken } from "./kv/kv_slice.ts";
import type { ModelConfig } from "./model/model_config.ts";
import type { TensorInfo } from "./model/tensor_files.ts";
import { quantizedTo } from "./model/weight_sources.ts";
import { PAGE_TOKENS, pagesFor } from "./span.ts";

/** What a model needs on the GPU of each worker. */
export interface ModelNeeds {
  readonly weightBytes: number;
  /** What matrices are kept as, those of the most bytes first. */
  readonly weightTypes: readonly WeightDType[];
  /** Of the longest prefill chunk, roughly, and the halves that quantised weights are decoded to for it. */
  readonly workingBytes: number;
  readonly kvBytesPerToken: number;
}

/** A model whose weights have not been read. */
export interface UnreadModel {
  readonly config: ModelConfig;
  /** Of its files; undefined for random weights. */
  readonly tensors: ReadonlyMap<string, TensorInfo> | undefined;
  readonly quantize: QuantizedDType | undefined;
  /** The context that was asked for, which a worker alone must hold. */
  readonly contextTokens?: number | undefined;
}

/** Rows of a long prefill chunk. */
const CHUNK_ROWS = 2048;
const GIB = 2 ** 30;

/** What a model needs. */
export function needsOf({ config, tensors, quantize }: UnreadModel): ModelNeeds {
  const { hidden, heads, kvHeads, headDim, ffn } = config;
  const columns = 3 * hidden + 2 * (heads + 2 * kvHeads) * headDim + 3 * ffn;
  const { bytes, types } = tensors === undefined
    ? tallyShape(config, quantize)
    : tallyTensors(config, tensors, quantize);
  return {
    weightBytes: bytes,
    weightTypes: types,
    workingBytes: Math.min(CHUNK_ROWS, config.maxPositions) * columns * 4 +
      (types.some(isQuantized) ? weightBytes("f16", 2 * ffn * hidden) : 0),
    kvBytesPerToken: kvBytesPerToken(config),
  };
}

/**
 * Checks that a model fits with the KV capacity asked for, or with a page of it; with what lies beside it, where replicas do.
 * @returns lines for people: what it needs, and what there is
 * @throws {GpuError} `out_of_gpu_memory` when it does not, with what would
 * @throws {EngineError} `kv_exhausted` for a capacity that no such device has
 */
export async function checkFit(
  gpu: Gpu,
  model: UnreadModel,
  { kvTokens, ...choice }: Omit<KvCapacity, "workersOnHost">,
): Promise<readonly string[]> {
  const plan = copyPlanOf(choice);
  if (kvTokens !== "auto") {
    checkKvTokens(gpu, model.config, { kvTokens, replicaPages: leastCopyPages(pagesFor(kvTokens), plan) });
  }
  const needs = needsOf(model);
  const fixed = needs.weightBytes + needs.workingBytes;
  // Workers that share a sequence have copies of each other's rows; what they hold together is known when all are there.
  const asked = plan === undefined ? model.contextTokens : undefined;
  const [least, most] = kvTokens === "auto" ? [asked ?? PAGE_TOKENS, model.config.maxPositions] : [kvTokens, kvTokens];
  const free = await freeBytes(gpu, fixed + bytesOfKv(needs, most, plan));
  if (free < fixed + bytesOfKv(needs, least, plan)) {
    const flag = kvTokens === "auto" && asked !== undefined ? "--context" : "--kv-tokens";
    throw unfit(model, needs, { free, tokens: least, plan, flag });
  }
  const fitting = Math.min(tokensWithin(needs, free - fixed, plan), model.config.maxPositions);
  return [
    `Memory: weights ${gib(needs.weightBytes)} in ${needs.weightTypes.join(" and ")}, working memory ${
      gib(needs.workingBytes)
    }, keys and values ` +
    `${Math.round(needs.kvBytesPerToken / 1024)} KiB a token` +
    (plan === undefined
      ? ""
      : `, copies of other workers' rows at least ${
        gib(bytesOfPages(needs, leastCopyPages(pagesFor(fitting), plan)))
      }`),
    `Memory: at least ${gib(free)} free: a context of ${fitting.toLocaleString("en")} tokens fits`,
  ];
}

function unfit(
  model: UnreadModel,
  needs: ModelNeeds,
  { free, tokens, plan, flag }: {
    readonly free: number;
    readonly tokens: number;
    readonly plan: CopyPlan | undefined;
    readonly flag: "--context" | "--kv-tokens";
  },
): GpuError {
  const remedies: string[] = [];
  const fitting = tokensWithin(needs, free - needs.weightBytes - needs.workingBytes, plan);
  if (fitting > 0) {
    remedies.push(`${flag} ${fitting} would fit`);
    remedies.push(`${Math.ceil(tokens / fitting)} workers with a GPU each would hold ${tokens} together`);
  }
  for (const quantize of ["q8", "q4"] as const) {
    const other = needsOf({ ...model, quantize });
    if (other.weightBytes >= needs.weightBytes) continue;
    const fixed = other.weightBytes + other.workingBytes;
    const total = fixed + bytesOfKv(other, tokens, plan);
    const fewer = tokensWithin(other, free - fixed, plan);
    if (total <= free) remedies.push(`--quantize ${quantize} would need ${gib(total)}`);
    else if (fewer > 0) remedies.push(`--quantize ${quantize} with ${flag} ${fewer} would fit`);
  }
  const remedy = remedies.length === 0 ? "a smaller model, or a GPU with more memory, is needed" : remedies.join("; ");
  return new GpuError(
    "out_of_gpu_memory",
    `Cannot load the model: weights of ${gib(needs.weightBytes)}, working memory of ${gib(needs.workingBytes)} and ` +
      `${tokens} tokens of ${gib(bytesOfKv(needs, tokens, plan))}${
        plan === undefined ? "" : ", copies of others' rows included,"
      } ` +
      `exceed the ${gib(free)} that are free: ${remedy}`,
  );
}

function bytesOfKv(needs: ModelNeeds, tokens: number, plan: CopyPlan | undefined): number {
  const pages = pagesFor(tokens);
  return bytesOfPages(needs, pages + leastCopyPages(pages, plan));
}

function bytesOfPages({ kvBytesPerToken }: ModelNeeds, pages: number): number {
  return pages * PAGE_TOKENS * kvBytesPerToken;
}

/** Positions, in whole pages, that fit into so many bytes with what lies beside them. */
function tokensWithin(needs: ModelNeeds, bytes: number, plan: CopyPlan | undefined): number {
  const pages = Math.floor(Math.max(0, bytes) / needs.kvBytesPerToken / PAGE_TOKENS);
  const tokens = ownPages(pages, plan) * PAGE_TOKENS;
  return bytesOfKv(needs, tokens, plan) <= bytes ? tokens : 0;
}

/** Bytes of matrices by the type that they are kept as, and of vectors. */
class Tally {
  readonly matrices = new Map<WeightDType, number>();
  vectorBytes = 0;

  add(dtype: WeightDType, weights: number): void {
    this.matrices.set(dtype, (this.matrices.get(dtype) ?? 0) + weightBytes(dtype, weights));
  }

  get bytes(): number {
    return this.matrices.values().reduce((sum, bytes) => sum + bytes, this.vectorBytes);
  }

  /** Those of the most bytes first. */
  get types(): readonly WeightDType[] {
    return [...this.matrices].sort(([, a], [, b]) => b - a).map(([dtype]) => dtype);
  }
}

function tallyTensors(
  { tiedEmbeddings }: ModelConfig,
  tensors: ReadonlyMap<string, TensorInfo>,
  quantize: QuantizedDType | undefined,
): Tally {
  const tally = new Tally();
  for (const [name, { dtype, shape }] of tensors) {
    const [rows = 1, cols] = shape;
    if (tiedEmbeddings && name === "lm_head.weight") continue;
    const isTable = name === "lm_head.weight" || name === "model.embed_tokens.weight";
    const asked = cols === undefined || isBlockType(dtype) ? undefined : quantizedTo(quantize, { cols, isTable });
    if (cols === undefined) tally.vectorBytes += rows * 4;
    else tally.add(asked ?? keptAs(dtype), rows * cols);
  }
  return tally;
}

function tallyShape(config: ModelConfig, quantize: QuantizedDType | undefined): Tally {
  const { layers, hidden, ffn, heads, kvHeads, headDim, vocabSize, tiedEmbeddings } = config;
  const tally = new Tally();
  const add = (rows: number, cols: number, { isTable = false } = {}) =>
    tally.add(quantizedTo(quantize, { cols, isTable }) ?? "f16", rows * cols);
  add(layers * (heads + 2 * kvHeads) * headDim, hidden);
  add(layers * hidden, heads * headDim);
  add(layers * 2 * ffn, hidden);
  add(layers * hidden, ffn);
  add((tiedEmbeddings ? 1 : 2) * vocabSize, hidden, { isTable: true });
  return tally;
}

function gib(bytes: number): string {
  return bytes < 0.1 * GIB ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / GIB).toFixed(1)} GiB`;
}
