/**
 * The header of a GGUF file: metadata, and which tensors it holds where. Every count, length and offset is checked
 * against a bound and against the length of the file, so that a hostile file costs bounded memory. Knows the container;
 * knows nothing of what a key means. Format: the GGUF specification, versions 2 and 3.
 */

import { blockOf } from "../../../kernels/weights/source_types.ts";
import { EngineError } from "../../errors.ts";
import { shown } from "../json_file.ts";
import type { Shard } from "../shard.ts";
import type { PlacedTensor } from "../tensor_files.ts";
import { ByteReader, MoreBytesNeeded } from "./byte_reader.ts";
import { DTYPES, UNREAD_DTYPES } from "./dtypes.ts";

/** A value of the metadata. Lists are flat. */
export type MetadataValue = string | number | boolean | readonly (string | number | boolean)[];

/** A parsed header. */
export interface GgufHeader {
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly tensors: readonly PlacedTensor[];
}

/** "GGUF", little-endian. */
const MAGIC = 0x46554747;
const FIRST_BYTES = 1 << 20;
/** A vocabulary of 256,000 tokens with its merges takes 20 MB. */
const MAX_HEADER_BYTES = 64 << 20;
const MAX_KEYS = 1 << 16;
const MAX_TENSORS = 1 << 16;
const MAX_KEY_BYTES = 1 << 16;
const MAX_NAME_BYTES = 1 << 10;
const MAX_STRING_BYTES = 4 << 20;
const MAX_ELEMENTS = 1 << 22;
const MAX_DIMENSIONS = 4;
const DEFAULT_ALIGNMENT = 32;
const MAX_ALIGNMENT = 1 << 16;
/** A tensor's entry: name, dimensions, type, offset. */
const MIN_TENSOR_BYTES = 24;
const MIN_KEY_BYTES = 13;

const STRING = 8;
const ARRAY = 9;

/** Numbers and booleans by the format's type ids: bytes of one, and how it is read. */
const SCALARS: Readonly<
  Record<number, readonly [bytes: number, read: (r: ByteReader, what: string) => number | boolean]>
> = {
  0: [1, (r, what) => r.u8(what)],
  1: [1, (r, what) => r.i8(what)],
  2: [2, (r, what) => r.u16(what)],
  3: [2, (r, what) => r.i16(what)],
  4: [4, (r, what) => r.u32(what)],
  5: [4, (r, what) => r.i32(what)],
  6: [4, (r, what) => r.f32(what)],
  7: [1, (r, what) => r.u8(what) !== 0],
  10: [8, (r, what) => r.u64(what)],
  11: [8, (r, what) => r.i64(what)],
  12: [8, (r, what) => r.f64(what)],
};

/**
 * Reads the header of an open file, and of the file no more than that.
 * @throws {EngineError} `invalid_model` naming file, key or tensor, and bound; `unsupported_model` for a type or version
 * that is not read
 */
export async function readHeader(shard: Shard): Promise<GgufHeader> {
  const fileBytes = await shard.size();
  for (let length = Math.min(FIRST_BYTES, fileBytes);;) {
    const bytes = new Uint8Array(length);
    await shard.read(0, bytes);
    try {
      return parseHeader(bytes, fileBytes, shard.path);
    } catch (error) {
      if (!(error instanceof MoreBytesNeeded)) throw error;
      if (error.bytes > MAX_HEADER_BYTES) {
        throw new EngineError(
          "invalid_model",
          `Cannot read ${shard.path}: the header must have at most ${MAX_HEADER_BYTES} bytes, given ${error.bytes} or more`,
        );
      }
      length = Math.min(fileBytes, MAX_HEADER_BYTES, Math.max(2 * length, error.bytes));
    }
  }
}

/**
 * Parses a header.
 *
 * @param bytes the file's first bytes
 * @throws {MoreBytesNeeded} when they end before the header does
 */
export function parseHeader(bytes: Uint8Array, fileBytes: number, source: string): GgufHeader {
  const reader = new ByteReader({ bytes, fileBytes, source });
  checkVersion(reader, source);
  const tensorCount = reader.count(MAX_TENSORS, "the number of tensors");
  const keyCount = reader.count(MAX_KEYS, "the number of metadata keys");
  reader.expect(tensorCount * MIN_TENSOR_BYTES + keyCount * MIN_KEY_BYTES, "its keys and tensors");
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < keyCount; i++) {
    const key = reader.string(MAX_KEY_BYTES, `metadata key ${i}`);
    if (metadata.has(key)) throw reader.invalid(`metadata key ${shown(key)} must occur once, given twice`);
    metadata.set(key, readValue(reader, shown(key)));
  }
  const entries = Array.from({ length: tensorCount }, (_, i) => readEntry(reader, i, source));
  const alignment = alignmentOf(reader, metadata);
  const dataStart = Math.ceil(reader.position / alignment) * alignment;
  return { metadata, tensors: placed(reader, entries, { dataStart, alignment, fileBytes }) };
}

function checkVersion(reader: ByteReader, source: string): void {
  const magic = reader.u32("the magic number");
  if (magic !== MAGIC) throw reader.invalid(`expected a GGUF file, found one that begins with 0x${magic.toString(16)}`);
  const version = reader.u32("the version");
  if (version === 2 || version === 3) return;
  const given = version > 0xffff ? "a big-endian file" : `${version}`;
  throw new EngineError("unsupported_model", `Cannot load ${source}: the GGUF version must be 2 or 3, given ${given}`);
}

function readValue(reader: ByteReader, key: string): MetadataValue {
  const type = reader.u32(`the type of ${key}`);
  if (type !== ARRAY) return readOne(reader, type, key);
  const elementType = reader.u32(`the element type of ${key}`);
  const count = reader.count(MAX_ELEMENTS, `the number of elements of ${key}`);
  // Before an element is read: memory is taken for what the file can hold only.
  const [bytes] = elementType === STRING ? [8] : SCALARS[elementType] ?? [];
  if (bytes === undefined) {
    const found = elementType === ARRAY ? "lists" : `type ${elementType}`;
    throw reader.invalid(`the elements of ${key} must be numbers, booleans or strings, given ${found}`);
  }
  reader.expect(count * bytes, `the elements of ${key}`);
  const values: (string | number | boolean)[] = [];
  for (let i = 0; i < count; i++) values.push(readOne(reader, elementType, key));
  return values;
}

function readOne(reader: ByteReader, type: number, key: string): string | number | boolean {
  if (type === STRING) return reader.string(MAX_STRING_BYTES, key);
  const scalar = SCALARS[type];
  if (scalar === undefined) throw reader.invalid(`the type of ${key} must be from 0 to 12, given ${type}`);
  return scalar[1](reader, key);
}

/** A tensor whose offset counts from the start of the data. */
function readEntry(reader: ByteReader, index: number, source: string): PlacedTensor {
  const name = reader.string(MAX_NAME_BYTES, `the name of tensor ${index}`);
  const what = `tensor ${shown(name)}`;
  const dimensions = reader.u32(`the dimensions of ${what}`);
  if (dimensions > MAX_DIMENSIONS) {
    throw reader.invalid(`the dimensions of ${what} must be at most ${MAX_DIMENSIONS}, given ${dimensions}`);
  }
  // The file has the innermost first.
  const shape = Array.from({ length: dimensions }, () => reader.u64(`the shape of ${what}`)).reverse();
  const dtype = readDType(reader.u32(`the type of ${what}`), what, source);
  const elements = shape.reduce((product, size) => product * size, 1);
  if (elements < 1 || !Number.isSafeInteger(elements)) {
    throw reader.invalid(`the shape of ${what} must have from 1 to 2^53 elements, given [${shape.join(", ")}]`);
  }
  const block = blockOf(dtype);
  const row = shape.at(-1) ?? 1;
  if (row % block.weights !== 0) {
    throw reader.invalid(`rows of ${what} must be a multiple of ${block.weights} for ${dtype}, given ${row}`);
  }
  const position = reader.u64(`the offset of ${what}`);
  return { name, dtype, shape, bytes: elements / block.weights * block.bytes, position };
}

function readDType(type: number, what: string, source: string): PlacedTensor["dtype"] {
  const dtype = DTYPES[type];
  if (dtype !== undefined) return dtype;
  const known = Object.values(DTYPES).join(", ");
  throw new EngineError(
    "unsupported_model",
    `Cannot load ${source}: the type of ${what} must be one of ${known}, given ${
      UNREAD_DTYPES[type] ?? `type ${type}`
    }`,
  );
}

function alignmentOf(reader: ByteReader, metadata: ReadonlyMap<string, MetadataValue>): number {
  const given = metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT;
  if (typeof given === "number" && given >= 8 && given <= MAX_ALIGNMENT && given % 8 === 0) return given;
  throw reader.invalid(
    `"general.alignment" must be a multiple of 8 from 8 to ${MAX_ALIGNMENT}, given ${shown(given)}`,
  );
}

/** Tensors in order of their data, at their places in the file; no two share a byte. */
function placed(
  reader: ByteReader,
  entries: readonly PlacedTensor[],
  { dataStart, alignment, fileBytes }: Record<"dataStart" | "alignment" | "fileBytes", number>,
): readonly PlacedTensor[] {
  const names = new Set<string>();
  const tensors = entries.map((entry) => ({ ...entry, position: dataStart + entry.position }))
    .sort((a, b) => a.position - b.position);
  let end = dataStart;
  for (const { name, position, bytes } of tensors) {
    const what = `tensor ${shown(name)}`;
    if (names.has(name)) throw reader.invalid(`${what} must occur once, given twice`);
    names.add(name);
    const offset = position - dataStart;
    if (offset % alignment !== 0) {
      throw reader.invalid(`the offset of ${what} must be a multiple of ${alignment}, given ${offset}`);
    }
    if (position < end) {
      throw reader.invalid(
        `the offset of ${what} must be at least ${end - dataStart}, where others end, given ${offset}`,
      );
    }
    end = position + bytes;
    if (end > fileBytes) {
      throw reader.invalid(
        `${what} must end within the file's ${fileBytes} bytes, given offset ${offset} and ${bytes} bytes`,
      );
    }
  }
  return tensors;
}
