/**
 * One file from the hub into the cache: goes on where an earlier try ended, hashes what it writes, and gives the file its
 * name only when the hash is right.
 */

import { createHash, type Hash } from "node:crypto";
import { dirname } from "node:path";
import type { HubBody, HubFile } from "./hub_client.ts";
import { HubError } from "./hub_error.ts";
import { fileExists } from "../host/file_exists.ts";

/** How a file is fetched. */
export interface DownloadOptions {
  readonly file: HubFile;
  /** Where it ends up; `<target>.incomplete` until then. */
  readonly target: string;
  readonly open: (from: number) => Promise<HubBody>;
  /** @param bytes that are there now */
  readonly onProgress: (bytes: number) => void;
  /** Before the n-th try after a cut, in milliseconds. @default doubles from 1 s */
  readonly pauseMs?: (tries: number) => number;
  /** Silence after which a connection counts as cut. @default 30000 */
  readonly silenceMs?: number;
}

/** Tries in a row that bring no byte. */
const MAX_IDLE_TRIES = 5;
const BLOCK_BYTES = 4 << 20;
const EXCLUSIVE = true;
const SILENCE_MS = 30_000;

/**
 * @throws {HubError} `hub_corrupt` when the content is not what was promised: it is removed; `hub_unreachable` after
 * several tries that brought nothing: what came so far is kept; `hub_refused`
 */
export async function download(options: DownloadOptions): Promise<void> {
  const { file, target, pauseMs = defaultPause } = options;
  await Deno.mkdir(dirname(target), { recursive: true });
  const path = `${target}.incomplete`;
  using handle = await Deno.open(path, { read: true, write: true, create: true });
  // Another process may be downloading it: the second one waits, and finds the file.
  await handle.lock(EXCLUSIVE);
  if (await fileExists(target)) return;
  const partial = new PartialFile(handle, options);
  await partial.hashWhatIsThere();
  let idleTries = 0;
  while (partial.bytes < file.bytes) {
    const before = partial.bytes;
    const failure = await partial.append();
    idleTries = partial.bytes > before ? 0 : idleTries + 1;
    if (idleTries === MAX_IDLE_TRIES) throw unreachable(file, partial.bytes, failure);
    if (partial.bytes < file.bytes) await pause(pauseMs(idleTries));
  }
  const found = partial.digest();
  if (found !== file.hash.hex) {
    await Deno.remove(path);
    throw corrupt(file, `${file.hash.kind} ${found} instead of ${file.hash.hex}; it was removed`);
  }
  await Deno.rename(path, target);
}

/** The bytes that are there, and their hash. */
class PartialFile {
  readonly #handle: Deno.FsFile;
  readonly #options: DownloadOptions;
  #hash: Hash;
  #bytes = 0;

  constructor(handle: Deno.FsFile, options: DownloadOptions) {
    this.#handle = handle;
    this.#options = options;
    this.#hash = hashOf(options.file);
  }

  get bytes(): number {
    return this.#bytes;
  }

  digest(): string {
    return this.#hash.digest("hex");
  }

  /** Resumes what an earlier try left; more than there can be is thrown away. */
  async hashWhatIsThere(): Promise<void> {
    const { size } = await this.#handle.stat();
    if (size > this.#options.file.bytes) return await this.#restart();
    const block = new Uint8Array(BLOCK_BYTES);
    for (;;) {
      const count = await this.#handle.read(block);
      if (count === null) return;
      this.#hash.update(block.subarray(0, count));
      this.#bytes += count;
    }
  }

  /**
   * Asks for what is missing, and takes what comes.
   * @returns why it ended early; undefined when the answer ended by itself
   * @throws {HubError} for what another try will not fix
   */
  async append(): Promise<Error | undefined> {
    const { file, open, onProgress, silenceMs = SILENCE_MS } = this.#options;
    try {
      const { from, chunks } = await open(this.#bytes);
      if (from !== this.#bytes) await this.#restart();
      await this.#handle.seek(this.#bytes, Deno.SeekMode.Start);
      for await (const chunk of withDeadline(chunks, silenceMs)) {
        if (this.#bytes + chunk.length > file.bytes) throw corrupt(file, `more than its ${file.bytes} bytes`);
        await writeAll(this.#handle, chunk);
        this.#hash.update(chunk);
        this.#bytes += chunk.length;
        onProgress(this.#bytes);
      }
      return undefined;
    } catch (error) {
      const mayMend = error instanceof HubError ? error.code === "hub_unreachable" : !isDiskError(error);
      if (mayMend && error instanceof Error) return error;
      throw error;
    }
  }

  async #restart(): Promise<void> {
    await this.#handle.truncate(0);
    this.#hash = hashOf(this.#options.file);
    this.#bytes = 0;
  }
}

/** Asking the hub again does not help with a full disk. */
function isDiskError(error: unknown): boolean {
  return error instanceof Error && "code" in error && ["ENOSPC", "EDQUOT", "EIO", "EROFS"].includes(String(error.code));
}

function hashOf({ hash, bytes }: HubFile): Hash {
  // Git hashes a file's length with it.
  return hash.kind === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${bytes}\0`);
}

/** The chunks of a body; ends it when none comes for so long. */
async function* withDeadline(
  chunks: ReadableStream<Uint8Array<ArrayBuffer>>,
  silenceMs: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = chunks.getReader();
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    for (;;) {
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`nothing came for ${silenceMs} ms`)), silenceMs);
      });
      const { done, value } = await Promise.race([reader.read(), silence]);
      clearTimeout(timer);
      if (done) return;
      yield value;
    }
  } finally {
    clearTimeout(timer);
    // It may have been cut already.
    await reader.cancel().catch(() => {});
  }
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
}

function defaultPause(tries: number): number {
  return 1000 * 2 ** tries;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function corrupt({ path }: HubFile, found: string): HubError {
  return new HubError("hub_corrupt", `Cannot keep ${path}: it has ${found}`);
}

function unreachable({ path, bytes }: HubFile, have: number, cause: Error | undefined): HubError {
  const reason = cause?.message ?? "the answers were empty";
  return new HubError(
    "hub_unreachable",
    `Cannot fetch ${path}: ${have} of ${bytes} bytes came, then nothing in ${MAX_IDLE_TRIES} tries: ${reason}; ` +
      "pull again to go on",
    { cause },
  );
}
