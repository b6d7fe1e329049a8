/**
 * The weights of a model on the GPU: read from a Hugging Face directory, or random for a shape without files.
 * Knows tensor names and how products are fused; `weight_sources.ts` and `file_source.ts` know where numbers come from.
 */

import type { Commands } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { QuantizedDType } from "../../kernels/weights/format.ts";
import { freeWeight, type Weight } from "../../kernels/weights/weight.ts";
import { EngineError } from "../errors.ts";
import type { ModelConfig } from "./model_config.ts";
import type { TensorFiles } from "./tensor_files.ts";
import { FileSource } from "./file_source.ts";
import { RandomSource, type WeightSource } from "./weight_sources.ts";

/** One transformer layer. Matrices are [output rows, input columns]. */
export interface LayerWeights {
  /** f32 [hidden]; of rows before attention. Undefined where a family has none. */
  readonly attentionNorm: Tensor | undefined;
  /** Queries, then keys, then values: [(heads + 2·kvHeads)·headDim, hidden]. */
  readonly qkv: Weight;
  /** f32 [(heads + 2·kvHeads)·headDim]; Qwen2 only. */
  readonly qkvBias: Tensor | undefined;
  /** f32 [headDim], or of all heads together [heads·headDim] and [kvHeads·headDim]: see `qkNorm`. */
  readonly qNorm: Tensor | undefined;
  readonly kNorm: Tensor | undefined;
  /** [hidden, heads·headDim]. */
  readonly output: Weight;
  /** f32 [hidden]; of what attention adds. Undefined where a family has none. */
  readonly outputNorm: Tensor | undefined;
  /** f32 [hidden]; of rows before the MLP. Undefined where a family has none. */
  readonly mlpNorm: Tensor | undefined;
  /** Gate, then up: [2·ffn, hidden]. */
  readonly gateUp: Weight;
  /** [hidden, ffn]. */
  readonly down: Weight;
  /** f32 [hidden]; of what the MLP adds. Undefined where a family has none. */
  readonly downNorm: Tensor | undefined;
}

/** All weights of a model. */
export interface Weights {
  readonly embedding: Weight;
  readonly layers: readonly LayerWeights[];
  readonly finalNorm: Tensor;
  /** The embedding itself when the head is tied. */
  readonly head: Weight;
  readonly parameters: number;
}

/** Where weights come from, and how they are kept. */
export interface LoadOptions {
  readonly files: TensorFiles;
  /** What plain matrices become; @default what they are */
  readonly quantize?: QuantizedDType | undefined;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Reads all weights of a model onto the GPU.
 * @throws {EngineError} `invalid_model` naming the tensor, and the shape expected and found
 * @throws {GpuError} `out_of_gpu_memory`
 */
export async function loadWeights(
  commands: Commands,
  config: ModelConfig,
  { files, quantize, onProgress }: LoadOptions,
): Promise<Weights> {
  checkLayers(config, files);
  const source = new FileSource(commands, files, { quantize, onProgress });
  try {
    const weights = await buildWeights(config, source);
    await source.finish();
    return weights;
  } finally {
    await source.close();
  }
}

/** A model cut short by its configuration computes something, but not what it was made for. */
function checkLayers({ layers }: ModelConfig, files: TensorFiles): void {
  for (const name of files.tensors.keys()) {
    const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
    if (layer === undefined || Number(layer) < layers) continue;
    throw new EngineError(
      "invalid_model",
      `Cannot load ${files.pathOf(name)}: tensor ${name} belongs to no layer, as num_hidden_layers of config.json is ` +
        `${layers}; expected at least ${Number(layer) + 1}`,
    );
  }
}

/** Fills weights of the config's shape with random numbers of a scale that keeps activations bounded. */
export function randomWeights(
  commands: Commands,
  config: ModelConfig,
  options: { readonly seed: number; readonly quantize?: QuantizedDType | undefined },
): Promise<Weights> {
  return buildWeights(config, new RandomSource(commands, options));
}

/** Frees what `loadWeights` or `randomWeights` made. */
export function freeWeights(commands: Commands, weights: Weights): void {
  const { gpu } = commands;
  if (weights.head !== weights.embedding) freeWeight(gpu, weights.head);
  freeWeight(gpu, weights.embedding);
  gpu.free(weights.finalNorm);
  for (const layer of weights.layers) {
    for (const weight of [layer.qkv, layer.output, layer.gateUp, layer.down]) freeWeight(gpu, weight);
    const { attentionNorm, qkvBias, qNorm, kNorm, outputNorm, mlpNorm, downNorm } = layer;
    for (const tensor of [attentionNorm, qkvBias, qNorm, kNorm, outputNorm, mlpNorm, downNorm]) {
      if (tensor !== undefined) gpu.free(tensor);
    }
  }
}

async function buildWeights(config: ModelConfig, source: WeightSource): Promise<Weights> {
  const { hidden, vocabSize } = config;
  const embedding = await source.matrix(["model.embed_tokens.weight"], {
    rows: [vocabSize],
    cols: hidden,
    isTable: true,
  });
  const layers: LayerWeights[] = [];
  for (let layer = 0; layer < config.layers; layer++) layers.push(await buildLayer(config, source, layer));
  const finalNorm = await source.vector(["model.norm.weight"], [hidden], config.normOffset);
  const head = config.tiedEmbeddings
    ? embedding
    : await source.matrix(["lm_head.weight"], { rows: [vocabSize], cols: hidden, isTable: true });
  return { embedding, layers, finalNorm, head, parameters: countParameters(config) };
}

/** The norms of a block by their place; families use one name for different places. */
const BLOCK_NORMS: Readonly<Record<ModelConfig["blockNorms"], Partial<Record<BlockNorm, string>>>> = {
  before: { attentionNorm: "input_layernorm", mlpNorm: "post_attention_layernorm" },
  after: { outputNorm: "post_attention_layernorm", downNorm: "post_feedforward_layernorm" },
  both: {
    attentionNorm: "input_layernorm",
    outputNorm: "post_attention_layernorm",
    mlpNorm: "pre_feedforward_layernorm",
    downNorm: "post_feedforward_layernorm",
  },
};

type BlockNorm = "attentionNorm" | "outputNorm" | "mlpNorm" | "downNorm";

async function buildLayer(config: ModelConfig, source: WeightSource, layer: number): Promise<LayerWeights> {
  const { hidden, ffn, heads, kvHeads, headDim } = config;
  const prefix = `model.layers.${layer}`;
  const attention = `${prefix}.self_attn`;
  const [qRows, kvRows] = [heads * headDim, kvHeads * headDim];
  const qkv = config.fusedProjections ? ["qkv_proj"] : ["q_proj", "k_proj", "v_proj"];
  const qkvNames = (part: string) => qkv.map((name) => `${attention}.${name}.${part}`);
  const qkvRows = config.fusedProjections ? [qRows + 2 * kvRows] : [qRows, kvRows, kvRows];
  const gateUp = config.fusedProjections ? ["gate_up_proj"] : ["gate_proj", "up_proj"];
  const vector = (name: string | undefined, length: number) =>
    name === undefined ? undefined : source.vector([`${name}.weight`], [length], config.normOffset);
  const blockNorm = (place: BlockNorm) => {
    const name = BLOCK_NORMS[config.blockNorms][place];
    return vector(name && `${prefix}.${name}`, hidden);
  };
  const headNorm = (name: string, rows: number) =>
    config.qkNorm && vector(`${attention}.${name}`, config.qkNorm === "row" ? rows : headDim);
  return {
    attentionNorm: await blockNorm("attentionNorm"),
    qkv: await source.matrix(qkvNames("weight"), { rows: qkvRows, cols: hidden }),
    qkvBias: config.attentionBias ? await source.vector(qkvNames("bias"), qkvRows) : undefined,
    qNorm: await headNorm("q_norm", qRows),
    kNorm: await headNorm("k_norm", kvRows),
    output: await source.matrix([`${attention}.o_proj.weight`], { rows: [hidden], cols: qRows }),
    outputNorm: await blockNorm("outputNorm"),
    mlpNorm: await blockNorm("mlpNorm"),
    gateUp: await source.matrix(gateUp.map((name) => `${prefix}.mlp.${name}.weight`), {
      rows: gateUp.map(() => 2 * ffn / gateUp.length),
      cols: hidden,
    }),
    down: await source.matrix([`${prefix}.mlp.down_proj.weight`], { rows: [hidden], cols: ffn }),
    downNorm: await blockNorm("downNorm"),
  };
}

/** Number of weights, the tied head counted once. */
function countParameters(config: ModelConfig): number {
  const { hidden, ffn, heads, kvHeads, headDim, vocabSize } = config;
  const qkv = (heads + 2 * kvHeads) * headDim;
  const headNorms = { head: 2 * headDim, row: (heads + kvHeads) * headDim };
  const norms = Object.keys(BLOCK_NORMS[config.blockNorms]).length * hidden +
    (config.qkNorm === undefined ? 0 : headNorms[config.qkNorm]) + (config.attentionBias ? qkv : 0);
  const layer = qkv * hidden + hidden * heads * headDim + 3 * hidden * ffn + norms;
  return config.layers * layer + hidden + vocabSize * hidden * (config.tiedEmbeddings ? 1 : 2);
}
