/**
 * The header of a safetensors file: which tensors it holds and where. Nothing in it is trusted: sizes, types and
 * offsets are checked against each other and against the length of the file.
 */

import { EngineError } from "../errors.ts";
import { JsonObject, shown } from "./json_file.ts";
import type { Shard } from "./shard.ts";
import type { PlacedTensor } from "./tensor_files.ts";

/** Bytes of one element of each type we read. */
const DTYPE_BYTES = { F32: 4, F16: 2, BF16: 2 } as const;

/** A type of tensor element. */
type Dtype = keyof typeof DTYPE_BYTES;

/** Bytes before the header: its length, u64 little-endian. */
export const PREFIX_BYTES = 8;

const LITTLE_ENDIAN = true;

/** The bound of the format itself; no valid file comes near it. */
const MAX_HEADER_BYTES = 100_000_000;

/**
 * Reads and parses the header of an open file.
 * @throws {EngineError} `invalid_model`, `unsupported_model` for a header that is not sound
 */
export async function readHeader(shard: Shard): Promise<readonly PlacedTensor[]> {
  const size = await shard.size();
  const prefix = new Uint8Array(Math.min(PREFIX_BYTES, size));
  await shard.read(0, prefix);
  const header = new Uint8Array(headerLength(prefix, size, shard.path));
  await shard.read(PREFIX_BYTES, header);
  return parseHeader(header, size, shard.path);
}

/**
 * Length of the header that follows the prefix.
 *
 * @param prefix the first 8 bytes of the file
 * @throws {EngineError} `invalid_model` when that length cannot be
 */
export function headerLength(prefix: Uint8Array, fileBytes: number, source: string): number {
  if (prefix.length < PREFIX_BYTES) {
    throw invalid(source, `expected at least ${PREFIX_BYTES} bytes, found ${prefix.length}`);
  }
  const view = new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES);
  const length = view.getBigUint64(0, LITTLE_ENDIAN);
  const most = Math.min(MAX_HEADER_BYTES, fileBytes - PREFIX_BYTES);
  if (length > BigInt(most)) {
    throw invalid(source, `expected a header of at most ${most} bytes (file of ${fileBytes}), found ${length}`);
  }
  return Number(length);
}

/**
 * Parses a header.
 *
 * @param header the bytes after the prefix, as many as {@link headerLength} says
 * @returns the tensors in order of their data, which fill the rest of the file without gap or overlap
 * @throws {EngineError} `invalid_model` naming file, tensor, expected and found; `unsupported_model` for other types
 */
export function parseHeader(header: Uint8Array, fileBytes: number, source: string): readonly PlacedTensor[] {
  const dataStart = PREFIX_BYTES + header.length;
  const entries = [...JsonObject.parse(header, source).entries()].filter(([name]) => name !== "__metadata__");
  const tensors = entries.map(([name, value]) => {
    const entry = new JsonObject(value, `${source}, tensor ${shown(name)}`);
    return readEntry(entry, name, dataStart);
  }).sort((a, b) => a.position - b.position || a.bytes - b.bytes);
  let end = dataStart;
  for (const tensor of tensors) {
    if (tensor.position !== end) {
      const found = tensor.position - dataStart;
      throw invalid(source, `expected tensor ${shown(tensor.name)} to start at ${end - dataStart}, found ${found}`);
    }
    end += tensor.bytes;
    if (end > fileBytes) {
      throw invalid(source, `expected ${end} bytes to hold tensor ${shown(tensor.name)}, found ${fileBytes}`);
    }
  }
  if (end !== fileBytes) throw invalid(source, `expected ${end} bytes by its header, found ${fileBytes}`);
  return tensors;
}

function readEntry(entry: JsonObject, name: string, dataStart: number): PlacedTensor {
  const dtype = readDtype(entry);
  const shape = readSizes(entry, "shape");
  const [begin, end, ...more] = readSizes(entry, "data_offsets");
  if (begin === undefined || end === undefined || more.length > 0 || begin > end) {
    throw entry.invalid("data_offsets", "two ascending offsets");
  }
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
  if (end - begin !== bytes) {
    throw entry.invalid("data_offsets", `${bytes} bytes apart, for ${dtype} [${shape.join(", ")}]`);
  }
  return { name, dtype, shape, bytes, position: dataStart + begin };
}

function readDtype(entry: JsonObject): Dtype {
  switch (entry.string("dtype")) {
    case "F32":
      return "F32";
    case "F16":
      return "F16";
    case "BF16":
      return "BF16";
    case undefined:
      throw entry.invalid("dtype", "the name of a type");
    default:
      throw new EngineError(
        "unsupported_model",
        `Cannot load ${entry.source}: dtype must be F32, F16 or BF16, given ${shown(entry.value("dtype"))}`,
      );
  }
}

function readSizes(entry: JsonObject, field: string): number[] {
  const sizes = entry.array(field);
  if (sizes === undefined) throw entry.invalid(field, "a list of sizes");
  return sizes.map((size) => {
    if (typeof size === "number" && Number.isSafeInteger(size) && size >= 0) return size;
    throw entry.invalid(field, "a list of sizes");
  });
}

function invalid(source: string, what: string): EngineError {
  return new EngineError("invalid_model", `Cannot read ${source}: ${what}`);
}
