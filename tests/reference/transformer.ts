/**
 * The whole forward pass in plain f64 loops: clear rather than fast, the oracle that GPU results are compared with.
 * Computes every fixture family (biases, norms of heads and blocks, sliding windows of all layers or some, all rope
 * scalings) with a KV cache. Knows the Hugging Face tensor names; knows nothing of GPUs, spans or steps.
 */

import { type ModelConfig, readModelConfig } from "../../engine/model/model_config.ts";
import { localRopeFrequencies, type RopeFrequencies, ropeFrequencies } from "../../engine/model/rope.ts";
import { openTensors } from "../../engine/model/checkpoint.ts";
import type { TensorFiles } from "../../engine/model/tensor_files.ts";
import { toFloat64 } from "./floats.ts";
import { activated } from "./swiglu.ts";

/** Row-major matrix times column vector. @param matrix [rows, x.length] @returns [rows] */
function product(matrix: Float64Array, x: Float64Array): Float64Array {
  const y = new Float64Array(matrix.length / x.length);
  for (let row = 0; row < y.length; row++) {
    let sum = 0;
    for (let k = 0; k < x.length; k++) sum += at(matrix, row * x.length + k) * at(x, k);
    y[row] = sum;
  }
  return y;
}

/** @param x [n] @param weight [n] */
function rmsNorm(x: Float64Array, weight: Float64Array, eps: number): Float64Array {
  const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  const inverse = 1 / Math.sqrt(meanSquare + eps);
  return x.map((value, i) => value * inverse * at(weight, i));
}

/** Turns the first half of a head against the second half. @param head [headDim] */
function rotate(
  head: Float64Array,
  position: number,
  { inverseFrequencies, scale }: RopeFrequencies,
): Float64Array {
  const half = head.length / 2;
  return head.map((value, i) => {
    const angle = position * at(inverseFrequencies, i % half);
    const partner = i < half ? -at(head, i + half) : at(head, i - half);
    return (value * Math.cos(angle) + partner * Math.sin(angle)) * scale;
  });
}

function at(values: Float64Array, index: number): number {
  const value = values[index];
  if (value === undefined) throw new RangeError(`Cannot read index ${index}: the array has ${values.length}`);
  return value;
}

function added(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + at(b, i));
}

/** Names of the norms around attention and MLP, by `ModelConfig.blockNorms`. */
const BLOCK_NORMS: Readonly<
  Record<ModelConfig["blockNorms"], Partial<Record<"attention" | "afterAttention" | "mlp" | "afterMlp", string>>>
> = {
  before: { attention: "input_layernorm", mlp: "post_attention_layernorm" },
  after: { afterAttention: "post_attention_layernorm", afterMlp: "post_feedforward_layernorm" },
  both: {
    attention: "input_layernorm",
    afterAttention: "post_attention_layernorm",
    mlp: "pre_feedforward_layernorm",
    afterMlp: "post_feedforward_layernorm",
  },
};

/** [layer][position][kvHead]: [headDim] */
export type CacheRows = Float64Array[][][];

/** Rotated keys and values seen so far. */
export class ReferenceCache {
  readonly keys: CacheRows;
  readonly values: CacheRows;

  constructor(layers: number) {
    this.keys = Array.from({ length: layers }, () => []);
    this.values = Array.from({ length: layers }, () => []);
  }

  /** Positions held. */
  get length(): number {
    return this.keys[0]?.length ?? 0;
  }

  /** Forgets the positions from `length` on. */
  truncate(length: number): void {
    for (const rows of [...this.keys, ...this.values]) rows.length = Math.min(rows.length, length);
  }
}

/**
 * Which cached positions a row attends to; asked once for every row, layer and query head, in that order.
 * `queries` are the rotated queries of the row, [head][headDim].
 */
export type Visible = (
  row: { readonly layer: number; readonly head: number; readonly position: number; readonly queries: Float64Array[] },
  cache: ReferenceCache,
) => readonly number[];

/** A model with all its weights in f64. */
export class ReferenceModel {
  readonly config: ModelConfig;
  readonly #weights: ReadonlyMap<string, Float64Array>;
  readonly #rope: RopeFrequencies;
  readonly #localRope: RopeFrequencies;

  /** @param weights by Hugging Face name, row-major */
  constructor(config: ModelConfig, weights: ReadonlyMap<string, Float64Array>) {
    this.config = config;
    this.#weights = weights;
    this.#rope = ropeFrequencies(config);
    this.#localRope = localRopeFrequencies(config) ?? this.#rope;
  }

  /** Reads a model directory. */
  static async load(directory: string): Promise<ReferenceModel> {
    using files = await openTensors(directory);
    return new ReferenceModel(await readModelConfig(directory), await readAll(files));
  }

  newCache(): ReferenceCache {
    return new ReferenceCache(this.config.layers);
  }

  /**
   * Appends tokens to the cache and computes the logits of each.
   *
   * @param visible which positions a row sees; default: all up to its own, as far as the sliding window reaches
   * @returns one row of [vocabSize] per token
   */
  forward(tokens: Iterable<number>, cache: ReferenceCache, visible: Visible = this.#dense): Float64Array[] {
    return Array.from(tokens, (token) => this.#row(token, cache, visible));
  }

  /** Prefills a prompt and continues it with the best tokens. @returns the new tokens */
  greedy(prompt: Iterable<number>, count: number): number[] {
    const cache = this.newCache();
    let logits = this.forward(prompt, cache).at(-1);
    const tokens: number[] = [];
    while (tokens.length < count && logits !== undefined) {
      const best = logits.indexOf(Math.max(...logits));
      tokens.push(best);
      logits = this.forward([best], cache).at(-1);
    }
    return tokens;
  }

  #row(token: number, cache: ReferenceCache, visible: Visible): Float64Array {
    const { config } = this;
    const embedding = this.#weight("model.embed_tokens.weight");
    const position = cache.length;
    let x: Float64Array = embedding.slice(token * config.hidden, (token + 1) * config.hidden)
      .map((value) => value * config.embeddingScale);
    for (let layer = 0; layer < config.layers; layer++) {
      const prefix = `model.layers.${layer}`;
      const norms = BLOCK_NORMS[config.blockNorms];
      const norm = (values: Float64Array, name: string | undefined) =>
        name === undefined ? values : this.#norm(values, `${prefix}.${name}`);
      const mixed = this.#attention(norm(x, norms.attention), { layer, position, cache, visible });
      x = added(x, norm(mixed, norms.afterAttention));
      x = added(x, norm(this.#mlp(norm(x, norms.mlp), prefix), norms.afterMlp));
    }
    const last = this.#norm(x, "model.norm");
    return product(config.tiedEmbeddings ? embedding : this.#weight("lm_head.weight"), last);
  }

  #attention(
    x: Float64Array,
    { layer, position, cache, visible }: { layer: number; position: number; cache: ReferenceCache; visible: Visible },
  ): Float64Array {
    const { heads, kvHeads, localLayers, attentionScale } = this.config;
    const prefix = `model.layers.${layer}.self_attn`;
    const rope = localLayers?.isLocal[layer] ? this.#localRope : this.#rope;
    const turn = (head: Float64Array) => rotate(head, position, rope);
    const queries = this.#heads(x, prefix, "q").map(turn);
    cache.keys[layer]?.push(this.#heads(x, prefix, "k").map(turn));
    cache.values[layer]?.push(this.#heads(x, prefix, "v"));
    const mixed = queries.flatMap((query, head) => {
      const kvHead = Math.floor(head * kvHeads / heads);
      const positions = visible({ layer, head, position, queries }, cache);
      const rows = (held: CacheRows) => positions.map((p) => held[layer]?.[p]?.[kvHead] ?? new Float64Array());
      return [...attend(query, rows(cache.keys), rows(cache.values), attentionScale)];
    });
    return product(this.#weight(`${prefix}.o_proj.weight`), Float64Array.from(mixed));
  }

  /** Projects, adds the bias and norms heads, as far as the model has either. @returns [heads]: [headDim] */
  #heads(x: Float64Array, prefix: string, part: "q" | "k" | "v"): Float64Array[] {
    const { headDim, qkNorm, attentionBias } = this.config;
    let y = product(this.#projection(prefix, part), x);
    if (attentionBias) y = added(y, this.#weight(`${prefix}.${part}_proj.bias`));
    if (qkNorm === "row" && part !== "v") y = this.#norm(y, `${prefix}.${part}_norm`);
    const heads = Array.from({ length: y.length / headDim }, (_, h) => y.slice(h * headDim, (h + 1) * headDim));
    if (qkNorm !== "head" || part === "v") return heads;
    return heads.map((head) => this.#norm(head, `${prefix}.${part}_norm`));
  }

  /** The matrix of q, k or v; of fused ones, its rows among those of all three. */
  #projection(prefix: string, part: "q" | "k" | "v"): Float64Array {
    const { heads, kvHeads, headDim, hidden, fusedProjections } = this.config;
    if (!fusedProjections) return this.#weight(`${prefix}.${part}_proj.weight`);
    const ends = { q: [0, heads], k: [heads, heads + kvHeads], v: [heads + kvHeads, heads + 2 * kvHeads] } as const;
    const [start, end] = ends[part];
    return this.#weight(`${prefix}.qkv_proj.weight`).subarray(start * headDim * hidden, end * headDim * hidden);
  }

  #mlp(x: Float64Array, prefix: string): Float64Array {
    const { ffn, hidden, fusedProjections, activation } = this.config;
    const both = fusedProjections ? this.#weight(`${prefix}.mlp.gate_up_proj.weight`) : undefined;
    const gate = product(both?.subarray(0, ffn * hidden) ?? this.#weight(`${prefix}.mlp.gate_proj.weight`), x);
    const up = product(both?.subarray(ffn * hidden) ?? this.#weight(`${prefix}.mlp.up_proj.weight`), x);
    const inner = gate.map((value, i) => activated(value, activation) * at(up, i));
    return product(this.#weight(`${prefix}.mlp.down_proj.weight`), inner);
  }

  #norm(x: Float64Array, name: string): Float64Array {
    const { normOffset, rmsNormEps } = this.config;
    return rmsNorm(x, this.#weight(`${name}.weight`).map((value) => value + normOffset), rmsNormEps);
  }

  readonly #dense: Visible = ({ layer, position }) => {
    const { localLayers, slidingWindow } = this.config;
    const window = localLayers?.isLocal[layer] ? localLayers.window : slidingWindow;
    const first = Math.max(0, position + 1 - (window ?? Infinity));
    return Array.from({ length: position + 1 - first }, (_, i) => first + i);
  };

  #weight(name: string): Float64Array {
    const weight = this.#weights.get(name);
    if (weight === undefined) throw new RangeError(`Cannot compute the reference: there is no tensor ${name}`);
    return weight;
  }
}

/** Query times key, scaled. @param scale @default 1/√headDim */
export function score(query: Float64Array, key: Float64Array, scale = 1 / Math.sqrt(query.length)): number {
  return query.reduce((sum, value, d) => sum + value * at(key, d), 0) * scale;
}

/** Softmax attention of one query. @param keys [rows][headDim] @param values [rows][headDim] @returns [headDim] */
function attend(query: Float64Array, keys: Float64Array[], values: Float64Array[], scale: number): Float64Array {
  const scores = keys.map((key) => score(query, key, scale));
  const top = Math.max(...scores);
  const weights = scores.map((s) => Math.exp(s - top));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return query.map((_, d) => values.reduce((sum, value, i) => sum + (weights[i] ?? 0) / total * at(value, d), 0));
}

async function readAll(files: TensorFiles): Promise<Map<string, Float64Array>> {
  const weights = new Map<string, Float64Array>();
  for (const [name, { dtype }] of files.tensors) weights.set(name, toFloat64(await files.read(name), dtype));
  return weights;
}
