/**
 * A GGUF file of a named shape with random f16 weights, written as a stream: what llama.cpp is timed on beside our own random
 * weights. Knows the format as far as a llama needs it; its text is unreadable, which speed does not depend on.
 */

import type { ModelConfig } from "../../engine/model/model_config.ts";
import { toHalf } from "../../kernels/half.ts";

/** Value types of metadata. */
const U32 = 4;
const I32 = 5;
const F32 = 6;
const STRING = 8;
const ARRAY = 9;

/** Types of tensors, in the order of the format. */
const TENSOR_F32 = 0;
const TENSOR_F16 = 1;

const GGUF_VERSION = 3;
const ALIGNMENT = 32;
const LITTLE_ENDIAN = true;
/** One block of random values is repeated: making billions would take longer than the bench. */
const BLOCK_VALUES = 2 ** 22;

interface GgufTensor {
  readonly name: string;
  /** Rows, then columns; one extent for a vector. */
  readonly shape: readonly number[];
  readonly type: typeof TENSOR_F32 | typeof TENSOR_F16;
}

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

/** Writes the file; 16 GB for an 8B shape. */
export async function writeRandomGguf(path: string, config: ModelConfig): Promise<void> {
  const tensors = tensorsOf(config);
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const head = await header(config, tensors).blob();
  await writeAll(file, head);
  await writeAll(file, new Uint8Array(padding(head.length)));
  let state = 1;
  const values = Float32Array.from({ length: BLOCK_VALUES }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    // Uniform with a standard deviation of 0.02.
    return (state / 2 ** 32 - 0.5) * 0.0693;
  });
  const block = new Uint8Array(toHalf(values).buffer);
  for (const { shape, type } of tensors) {
    const count = shape.reduce((product, extent) => product * extent, 1);
    const bytes = count * (type === TENSOR_F32 ? 4 : 2);
    if (type === TENSOR_F32) await writeAll(file, new Uint8Array(new Float32Array(count).fill(1).buffer));
    else {
      for (let left = bytes; left > 0; left -= block.length) {
        await writeAll(file, block.subarray(0, Math.min(left, block.length)));
      }
    }
    await writeAll(file, new Uint8Array(padding(bytes)));
  }
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}

function padding(bytes: number): number {
  return (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT;
}

function tensorsOf({ layers, hidden, ffn, heads, kvHeads, headDim, vocabSize }: ModelConfig): GgufTensor[] {
  const matrix = (name: string, rows: number, cols: number): GgufTensor => ({
    name: `${name}.weight`,
    shape: [rows, cols],
    type: TENSOR_F16,
  });
  const norm = (name: string): GgufTensor => ({ name: `${name}.weight`, shape: [hidden], type: TENSOR_F32 });
  return [
    matrix("token_embd", vocabSize, hidden),
    norm("output_norm"),
    matrix("output", vocabSize, hidden),
    ...Array.from({ length: layers }, (_, i) => [
      norm(`blk.${i}.attn_norm`),
      matrix(`blk.${i}.attn_q`, heads * headDim, hidden),
      matrix(`blk.${i}.attn_k`, kvHeads * headDim, hidden),
      matrix(`blk.${i}.attn_v`, kvHeads * headDim, hidden),
      matrix(`blk.${i}.attn_output`, hidden, heads * headDim),
      norm(`blk.${i}.ffn_norm`),
      matrix(`blk.${i}.ffn_gate`, ffn, hidden),
      matrix(`blk.${i}.ffn_up`, ffn, hidden),
      matrix(`blk.${i}.ffn_down`, hidden, ffn),
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
    ["general.file_type", 1],
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
    bytes.u32(type).u64(offset);
    const size = shape.reduce((product, extent) => product * extent, 1) * (type === TENSOR_F32 ? 4 : 2);
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
