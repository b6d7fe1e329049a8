/**
 * A GGUF file of a named shape with random weights of one type, written as a stream: what llama.cpp is timed on beside our own
 * random weights. Knows the format as far as a llama needs it; its text is unreadable, which speed does not depend on.
 */

import { DTYPES } from "../../engine/model/gguf/dtypes.ts";
import type { ModelConfig } from "../../engine/model/model_config.ts";
import { toHalf } from "../../kernels/half.ts";
import { type BlockDType, blockOf, isBlockType, sourceBytes } from "../../kernels/weights/source_types.ts";
import { fileExists } from "../../router/host/file_exists.ts";
import { Random } from "../support/random.ts";
import { randomBlocks } from "../support/random_blocks.ts";
import { writeAll } from "../support/write_all.ts";

/** Value types of metadata. */
const U32 = 4;
const I32 = 5;
const F32 = 6;
const STRING = 8;
const ARRAY = 9;

const GGUF_VERSION = 3;
const ALIGNMENT = 32;
const LITTLE_ENDIAN = true;
/** A run of random values is repeated: making billions would take longer than the bench. */
const RUN_VALUES = 2 ** 22;
const DEVIATION = 0.02;

/** What the matrices of a file may be made of. */
export type MatrixType = "F16" | BlockDType;

interface GgufTensor {
  readonly name: string;
  /** Rows, then columns; one extent for a vector. */
  readonly shape: readonly number[];
  readonly type: "F32" | MatrixType;
}

const TYPE_IDS: ReadonlyMap<string, number> = new Map(Object.entries(DTYPES).map(([id, type]) => [type, Number(id)]));

const encoder = new TextEncoder();

/** Bytes in the order in which they are added. */
class ByteList {
  readonly #parts: Uint8Array<ArrayBuffer>[] = [];

  u32(value: number): this {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value, LITTLE_ENDIAN);
    return this.#add(view);
  }

  u64(value: number): this {
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, BigInt(value), LITTLE_ENDIAN);
    return this.#add(view);
  }

  f32(value: number): this {
    const view = new DataView(new ArrayBuffer(4));
    view.setFloat32(0, value, LITTLE_ENDIAN);
    return this.#add(view);
  }

  text(value: string): this {
    const bytes = encoder.encode(value);
    this.u64(bytes.length);
    this.#parts.push(bytes);
    return this;
  }

  async blob(): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await new Blob(this.#parts).arrayBuffer());
  }

  #add({ buffer }: DataView<ArrayBuffer>): this {
    this.#parts.push(new Uint8Array(buffer));
    return this;
  }
}

/** The file of that shape and type in a folder, written where it is not there yet. @returns its path */
export async function randomGguf(
  directory: string,
  { shape, config, type }: { readonly shape: string; readonly config: ModelConfig; readonly type: MatrixType },
): Promise<string> {
  const path = `${directory}/${shape}-${type}.gguf`;
  if (await fileExists(path)) return path;
  await writeRandomGguf(`${path}.part`, config, type);
  await Deno.rename(`${path}.part`, path);
  return path;
}

/** Writes the file; in f16 16 GB for an 8B shape. */
async function writeRandomGguf(path: string, config: ModelConfig, type: MatrixType = "F16"): Promise<void> {
  const tensors = tensorsOf(config, type);
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const head = await header(config, tensors).blob();
  await writeAll(file, head);
  await writeAll(file, new Uint8Array(padding(head.length)));
  const runs = new Map([...new Set(tensors.map(({ type }) => type))].map((type) => [type, randomRun(type)]));
  for (const { shape, type } of tensors) {
    const bytes = bytesOf({ shape, type });
    const run = runs.get(type) ?? new Uint8Array();
    for (let left = bytes; left > 0; left -= run.length) {
      await writeAll(file, run.subarray(0, Math.min(left, run.length)));
    }
    await writeAll(file, new Uint8Array(padding(bytes)));
  }
}

/** Bytes that are written again and again: ones for vectors, which are norms. */
function randomRun(type: GgufTensor["type"]): Uint8Array<ArrayBuffer> {
  if (type === "F32") return new Uint8Array(new Float32Array(RUN_VALUES).fill(1).buffer);
  const random = new Random(1);
  if (isBlockType(type)) return randomBlocks(random, type, RUN_VALUES, DEVIATION);
  const values = Float32Array.from({ length: RUN_VALUES }, () => (random.uniform() - 0.5) * Math.sqrt(12) * DEVIATION);
  return new Uint8Array(toHalf(values).buffer);
}

function bytesOf({ shape, type }: Pick<GgufTensor, "shape" | "type">): number {
  return sourceBytes(type, shape.reduce((product, extent) => product * extent, 1));
}

function padding(bytes: number): number {
  return (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT;
}

/** Embedding and head of 4-bit files have 8 bits, as ours have them. */
function tensorsOf(
  { layers, hidden, ffn, heads, kvHeads, headDim, vocabSize }: ModelConfig,
  type: MatrixType,
): GgufTensor[] {
  const matrix = (name: string, rows: number, cols: number, type: MatrixType): GgufTensor => {
    if (cols % blockOf(type).weights === 0) return { name: `${name}.weight`, shape: [rows, cols], type };
    throw new RangeError(`Cannot make ${name}: ${cols} columns are no whole blocks of ${type}`);
  };
  const norm = (name: string): GgufTensor => ({ name: `${name}.weight`, shape: [hidden], type: "F32" });
  const table = (name: string) => matrix(name, vocabSize, hidden, type === "Q4_0" ? "Q8_0" : type);
  return [
    table("token_embd"),
    norm("output_norm"),
    table("output"),
    ...Array.from({ length: layers }, (_, i) => [
      norm(`blk.${i}.attn_norm`),
      matrix(`blk.${i}.attn_q`, heads * headDim, hidden, type),
      matrix(`blk.${i}.attn_k`, kvHeads * headDim, hidden, type),
      matrix(`blk.${i}.attn_v`, kvHeads * headDim, hidden, type),
      matrix(`blk.${i}.attn_output`, hidden, heads * headDim, type),
      norm(`blk.${i}.ffn_norm`),
      matrix(`blk.${i}.ffn_gate`, ffn, hidden, type),
      matrix(`blk.${i}.ffn_up`, ffn, hidden, type),
      matrix(`blk.${i}.ffn_down`, hidden, ffn, type),
    ]).flat(),
  ];
}

function header(config: ModelConfig, tensors: readonly GgufTensor[]): ByteList {
  const numbers: readonly (readonly [string, number])[] = [
    ["llama.context_length", config.maxPositions],
    ["llama.embedding_length", config.hidden],
    ["llama.block_count", config.layers],
    ["llama.feed_forward_length", config.ffn],
    ["llama.attention.head_count", config.heads],
    ["llama.attention.head_count_kv", config.kvHeads],
    ["llama.rope.dimension_count", config.headDim],
    ["llama.vocab_size", config.vocabSize],
    ["tokenizer.ggml.bos_token_id", 1],
    ["tokenizer.ggml.eos_token_id", 2],
    ["tokenizer.ggml.unknown_token_id", 0],
  ];
  const texts = [["general.architecture", "llama"], ["general.name", "random"], [
    "tokenizer.ggml.model",
    "llama",
  ]] as const;
  const fractions = [["llama.attention.layer_norm_rms_epsilon", config.rmsNormEps], [
    "llama.rope.freq_base",
    config.ropeTheta,
  ]] as const;
  const bytes = new ByteList().u32(0x46554747).u32(GGUF_VERSION).u64(tensors.length);
  bytes.u64(numbers.length + texts.length + fractions.length + 3);
  for (const [key, value] of texts) bytes.text(key).u32(STRING).text(value);
  for (const [key, value] of numbers) bytes.text(key).u32(U32).u32(value);
  for (const [key, value] of fractions) bytes.text(key).u32(F32).f32(value);
  addVocabulary(bytes, config.vocabSize);
  let offset = 0;
  for (const { name, shape, type } of tensors) {
    bytes.text(name).u32(shape.length);
    for (const extent of [...shape].reverse()) bytes.u64(extent);
    bytes.u32(TYPE_IDS.get(type) ?? 0).u64(offset);
    const size = bytesOf({ shape, type });
    offset += size + padding(size);
  }
  return bytes;
}

/** Three special tokens, the 256 bytes, and words that are none. */
function addVocabulary(bytes: ByteList, vocabSize: number): void {
  const [special, single] = [["<unk>", "<s>", "</s>"], Array.from({ length: 256 }, (_, i) => `<0x${hex(i)}>`)];
  const words = Array.from({ length: vocabSize - special.length - single.length }, (_, i) => `t${i}`);
  bytes.text("tokenizer.ggml.tokens").u32(ARRAY).u32(STRING).u64(vocabSize);
  for (const token of [...special, ...single, ...words]) bytes.text(token);
  bytes.text("tokenizer.ggml.scores").u32(ARRAY).u32(F32).u64(vocabSize);
  for (let i = 0; i < vocabSize; i++) bytes.f32(0);
  bytes.text("tokenizer.ggml.token_type").u32(ARRAY).u32(I32).u64(vocabSize);
  for (let i = 0; i < vocabSize; i++) bytes.u32(i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1);
}

function hex(byte: number): string {
  return byte.toString(16).toUpperCase().padStart(2, "0");
}
