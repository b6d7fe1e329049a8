/** One open weight file: ranges of its bytes. */

import { EngineError } from "../errors.ts";
import { openModelFile } from "./model_file.ts";

/** One open file. Reads take turns: a file has a single position. */
export class Shard {
  readonly path: string;
  readonly #file: Deno.FsFile;
  #lastRead: Promise<void> = Promise.resolve();

  private constructor(path: string, file: Deno.FsFile) {
    this.path = path;
    this.#file = file;
  }

  /** @throws {EngineError} `invalid_model` when there is no such file, or something else in its place */
  static async open(path: string): Promise<Shard> {
    return new Shard(path, await openModelFile(path));
  }

  /** Bytes of the file now. */
  async size(): Promise<number> {
    return (await this.#file.stat()).size;
  }

  /**
   * Fills `into` from `position` on.
   * @throws {EngineError} `invalid_model` when the file has shrunk or cannot be read
   */
  read(position: number, into: Uint8Array): Promise<void> {
    const done = this.#lastRead.then(() => this.#fill(position, into));
    // The caller receives a failure through `done`; the next read starts all the same.
    this.#lastRead = done.catch(() => {});
    return done;
  }

  /** Closes the file; no read may be under way. */
  close(): void {
    this.#file.close();
  }

  async #fill(position: number, into: Uint8Array): Promise<void> {
    try {
      await this.#file.seek(position, Deno.SeekMode.Start);
      for (let filled = 0; filled < into.length;) {
        const count = await this.#file.read(into.subarray(filled));
        if (count === null) {
          const { size } = await this.#file.stat();
          const message = `Cannot read ${this.path}: expected ${position + into.length} bytes, found ${size}`;
          throw new EngineError("invalid_model", message);
        }
        filled += count;
      }
    } catch (cause) {
      if (cause instanceof EngineError) throw cause;
      throw new EngineError("invalid_model", `Cannot read ${this.path}: ${String(cause)}`, { cause });
    }
  }
}
