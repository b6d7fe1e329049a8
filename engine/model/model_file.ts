/**
 * Files of a model directory, opened with care: what is there may be a pipe that never gives a byte, a device that
 * never ends, or far larger than anything sane.
 */

import { EngineError } from "../errors.ts";

/** Bytes read at a time. */
const BLOCK_BYTES = 1 << 20;

/**
 * Opens a regular file, or a link to one.
 *
 * @throws {EngineError} `invalid_model` when it is missing, cannot be opened, or is something else
 */
export async function openModelFile(path: string): Promise<Deno.FsFile> {
  const file = await reading(path, async () => {
    // Before it is opened: opening a pipe waits for its other end.
    requireFile(await Deno.stat(path), path);
    return await Deno.open(path);
  });
  try {
    // Again: it may have been replaced since.
    requireFile(await reading(path, () => file.stat()), path);
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * Reads a file.
 *
 * @param maxBytes larger files are refused; one whose size is not what it says is read no further than that
 * @throws {EngineError} `invalid_model` when it is missing, no file, too large, or cannot be read
 */
export async function readModelFile(path: string, maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  using file = await openModelFile(path);
  const { size } = await reading(path, () => file.stat());
  if (size > maxBytes) throw tooLarge(path, maxBytes, size);
  let bytes = new Uint8Array(size);
  let filled = 0;
  for (;;) {
    // One byte more than the size shows where the file ends.
    if (filled === bytes.length) bytes = grown(bytes, Math.min(maxBytes + 1, filled + BLOCK_BYTES));
    const count = await reading(path, () => file.read(bytes.subarray(filled)));
    if (count === null) return bytes.slice(0, filled);
    filled += count;
    if (filled > maxBytes) throw tooLarge(path, maxBytes, filled);
  }
}

/** Whether there is something at this path; any answer but yes or no is an error. */
export async function fileExists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return false;
    throw new EngineError("invalid_model", `Cannot read ${path}: ${String(cause)}`, { cause });
  }
}

async function reading<T>(path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (cause instanceof EngineError) throw cause;
    const reason = cause instanceof Deno.errors.NotFound ? "no such file" : String(cause);
    throw new EngineError("invalid_model", `Cannot read ${path}: ${reason}`, { cause });
  }
}

function requireFile(info: Deno.FileInfo, path: string): void {
  if (info.isFile) return;
  throw new EngineError("invalid_model", `Cannot read ${path}: expected a regular file, found ${kindOf(info)}`);
}

function kindOf(info: Deno.FileInfo): string {
  if (info.isDirectory) return "a directory";
  if (info.isFifo) return "a named pipe";
  if (info.isSocket) return "a socket";
  return "a device";
}

function grown(bytes: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(length);
  larger.set(bytes);
  return larger;
}

function tooLarge(path: string, maxBytes: number, found: number): EngineError {
  return new EngineError("invalid_model", `Cannot read ${path}: expected at most ${maxBytes} bytes, found ${found}`);
}
