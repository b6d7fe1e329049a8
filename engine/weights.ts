/**
 * The weights of a model on the GPU: read from a Hugging Face directory, or random for a shape without files.
 * Knows tensor names and how products are fused; knows nothing of layers' order of work.
 */

import type { Commands } from "../kernels/pipeline.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { createWeight, freeWeight, type SourceDType, type Weight, writeRows } from "../kernels/weight.ts";
import { randomWeight } from "../kernels/random_weight.ts";
import { bf16ToF32, fromHalf } from "../kernels/half.ts";
import { EngineError } from "./errors.ts";
import type { ModelConfig } from "./model_config.ts";
import type { TensorFiles } from "./safetensors.ts";

/** One transformer layer. Matrices are [output rows, input columns]. */
export interface LayerWeights {
  /** f32 [hidden]. */
  readonly attentionNorm: Tensor;
  /** Queries, then keys, then values: [(heads + 2·kvHeads)·headDim, hidden]. */
  readonly qkv: Weight;
  /** f32 [(heads + 2·kvHeads)·headDim]; Qwen2 only. */
  readonly qkvBias: Tensor | undefined;
  /** f32 [headDim]; Qwen3 only. */
  readonly qNorm: Tensor | undefined;
  readonly kNorm: Tensor | undefined;
  /** [hidden, heads·headDim]. */
  readonly output: Weight;
  /** f32 [hidden]. */
  readonly mlpNorm: Tensor;
  /** Gate, then up: [2·ffn, hidden]. */
  readonly gateUp: Weight;
  /** [hidden, ffn]. */
  readonly down: Weight;
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

/** Where tensors come from; progress counts bytes of the source. */
interface Source {
  /** Concatenates the rows of the named matrices. */
  matrix(names: readonly string[], shape: { readonly rows: readonly number[]; readonly cols: number }): Promise<Weight>;
  /** Concatenates the named vectors; f32. */
  vector(names: readonly string[], lengths: readonly number[]): Promise<Tensor>;
}

/** Bytes read from a file before they are handed to the GPU; bounds the memory that a load takes on the host. */
const CHUNK_BYTES = 16 << 20;

/**
 * Reads all weights of a directory onto the GPU.
 * @throws {EngineError} `invalid_model` naming the tensor, and the shape expected and found
 * @throws {GpuError} `out_of_gpu_memory`
 */
export function loadWeights(
  commands: Commands,
  config: ModelConfig,
  { files, onProgress }: { files: TensorFiles; onProgress: (doneBytes: number, totalBytes: number) => void },
): Promise<Weights> {
  return buildWeights(config, fileSource(commands, files, onProgress));
}

/** Fills weights of the config's shape with random numbers of a scale that keeps activations bounded. */
export function randomWeights(commands: Commands, config: ModelConfig, seed: number): Promise<Weights> {
  return buildWeights(config, randomSource(commands, seed));
}

/** Frees what `loadWeights` or `randomWeights` made. */
export function freeWeights(commands: Commands, weights: Weights): void {
  const { gpu } = commands;
  if (weights.head !== weights.embedding) freeWeight(gpu, weights.head);
  freeWeight(gpu, weights.embedding);
  gpu.free(weights.finalNorm);
  for (const layer of weights.layers) {
    for (const weight of [layer.qkv, layer.output, layer.gateUp, layer.down]) freeWeight(gpu, weight);
    for (const tensor of [layer.attentionNorm, layer.qkvBias, layer.qNorm, layer.kNorm, layer.mlpNorm]) {
      if (tensor !== undefined) gpu.free(tensor);
    }
  }
}

async function buildWeights(config: ModelConfig, source: Source): Promise<Weights> {
  const { hidden, vocabSize } = config;
  const embedding = await source.matrix(["model.embed_tokens.weight"], { rows: [vocabSize], cols: hidden });
  const layers: LayerWeights[] = [];
  for (let layer = 0; layer < config.layers; layer++) layers.push(await buildLayer(config, source, layer));
  const finalNorm = await source.vector(["model.norm.weight"], [hidden]);
  const head = config.tiedEmbeddings
    ? embedding
    : await source.matrix(["lm_head.weight"], { rows: [vocabSize], cols: hidden });
  return { embedding, layers, finalNorm, head, parameters: countParameters(config) };
}

async function buildLayer(config: ModelConfig, source: Source, layer: number): Promise<LayerWeights> {
  const { hidden, ffn, heads, kvHeads, headDim } = config;
  const prefix = `model.layers.${layer}`;
  const attention = `${prefix}.self_attn`;
  const qkvRows = [heads * headDim, kvHeads * headDim, kvHeads * headDim];
  const qkvNames = (part: string) => ["q_proj", "k_proj", "v_proj"].map((name) => `${attention}.${name}.${part}`);
  return {
    attentionNorm: await source.vector([`${prefix}.input_layernorm.weight`], [hidden]),
    qkv: await source.matrix(qkvNames("weight"), { rows: qkvRows, cols: hidden }),
    qkvBias: config.attentionBias ? await source.vector(qkvNames("bias"), qkvRows) : undefined,
    qNorm: config.qkNorm ? await source.vector([`${attention}.q_norm.weight`], [headDim]) : undefined,
    kNorm: config.qkNorm ? await source.vector([`${attention}.k_norm.weight`], [headDim]) : undefined,
    output: await source.matrix([`${attention}.o_proj.weight`], { rows: [hidden], cols: heads * headDim }),
    mlpNorm: await source.vector([`${prefix}.post_attention_layernorm.weight`], [hidden]),
    gateUp: await source.matrix([`${prefix}.mlp.gate_proj.weight`, `${prefix}.mlp.up_proj.weight`], {
      rows: [ffn, ffn],
      cols: hidden,
    }),
    down: await source.matrix([`${prefix}.mlp.down_proj.weight`], { rows: [hidden], cols: ffn }),
  };
}

/** Number of weights, the tied head counted once. */
export function countParameters(config: ModelConfig): number {
  const { hidden, ffn, heads, kvHeads, headDim, vocabSize } = config;
  const qkv = (heads + 2 * kvHeads) * headDim;
  const norms = 2 * hidden + (config.qkNorm ? 2 * headDim : 0) + (config.attentionBias ? qkv : 0);
  const layer = qkv * hidden + hidden * heads * headDim + 3 * hidden * ffn + norms;
  return config.layers * layer + hidden + vocabSize * hidden * (config.tiedEmbeddings ? 1 : 2);
}

function fileSource(
  commands: Commands,
  files: TensorFiles,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): Source {
  const { gpu } = commands;
  const totalBytes = [...files.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  let doneBytes = 0;
  const progress = (bytes: number) => onProgress(doneBytes += bytes, totalBytes);

  const expect = (name: string, shape: readonly number[]) => {
    const found = files.tensors.get(name);
    if (found === undefined) {
      throw new EngineError("invalid_model", `Cannot load tensor ${name}: it is in no weight file`);
    }
    if (found.shape.join() !== shape.join()) {
      throw new EngineError(
        "invalid_model",
        `Cannot load tensor ${name}: its shape is [${found.shape.join(", ")}], expected [${shape.join(", ")}]`,
      );
    }
    return found;
  };

  return {
    async matrix(names, { rows, cols }) {
      const found = names.map((name, i) => expect(name, [rows[i] ?? 0, cols]));
      const dtype = found.some((tensor) => tensor.dtype === "F32") ? "f32" : "f16";
      const weight = createWeight(gpu, names[0] ?? "weight", { rows: rows.reduce((a, b) => a + b, 0), cols, dtype });
      let firstRow = 0;
      for (const [i, name] of names.entries()) {
        const source = found[i]?.dtype ?? "F16";
        await streamRows(files, { name, rows: rows[i] ?? 0, cols, source }, async (chunk, row) => {
          writeRows(gpu, weight, { firstRow: firstRow + row, data: chunk, source });
          progress(chunk.byteLength);
          // Staging memory of uploads is freed only by later submissions, and errors surface here.
          await gpu.settle();
        });
        firstRow += rows[i] ?? 0;
      }
      return weight;
    },
    async vector(names, lengths) {
      const total = lengths.reduce((a, b) => a + b, 0);
      const tensor = gpu.tensor(names[0] ?? "vector", "f32", [total]);
      const values = new Float32Array(total);
      let at = 0;
      for (const [i, name] of names.entries()) {
        const found = expect(name, [lengths[i] ?? 0]);
        const bytes = await files.read(name);
        values.set(decode(found.dtype, bytes), at);
        at += lengths[i] ?? 0;
        progress(bytes.byteLength);
      }
      gpu.write(tensor, values);
      return tensor;
    },
  };
}

async function streamRows(
  files: TensorFiles,
  tensor: { readonly name: string; readonly rows: number; readonly cols: number; readonly source: SourceDType },
  write: (chunk: Uint8Array<ArrayBuffer>, firstRow: number) => Promise<void>,
): Promise<void> {
  const rowBytes = tensor.cols * (tensor.source === "F32" ? 4 : 2);
  const step = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
  for (let row = 0; row < tensor.rows; row += step) {
    const count = Math.min(step, tensor.rows - row);
    await write(await files.readRange(tensor.name, row * rowBytes, count * rowBytes), row);
  }
}

function decode(dtype: SourceDType, bytes: Uint8Array<ArrayBuffer>): Float32Array {
  if (dtype === "F32") return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  return dtype === "F16" ? fromHalf(halves) : bf16ToF32(halves);
}

function randomSource(commands: Commands, seed: number): Source {
  const { gpu } = commands;
  let next = seed;
  return {
    async matrix(names, { rows, cols }) {
      const weight = createWeight(gpu, names[0] ?? "weight", {
        rows: rows.reduce((a, b) => a + b, 0),
        cols,
        dtype: "f16",
      });
      // A deviation of 1/√cols keeps the variance of a normalised row through a product.
      randomWeight(commands, weight, { seed: next++, deviation: 1 / Math.sqrt(cols) });
      commands.submit();
      await gpu.settle();
      return weight;
    },
    async vector(names, lengths) {
      const tensor = gpu.tensor(names[0] ?? "vector", "f32", [lengths.reduce((a, b) => a + b, 0)]);
      gpu.write(tensor, new Float32Array(tensor.byteLength / 4).fill(1));
      await gpu.check();
      return tensor;
    },
  };
}
