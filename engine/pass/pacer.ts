/**
 * Keeps long work in slices: submits after a few layers, and goes on when the slice before is done. So one slice is computed while
 * the next is recorded, and no wait holds the event loop, nor any work that others submit, for much longer than two of them.
 * Measures; knows nothing of what is computed.
 */

import type { Gpu } from "../../kernels/gpu.ts";
import type { Commands } from "../../kernels/pipeline.ts";

/** A display's watchdog, other processes and this process's event loop all need a turn at least this often. */
const SLICE_MS = 50;

/** A submitted slice. */
interface Slice {
  readonly layers: number;
  /** When the GPU was done with it. */
  readonly endMs: Promise<number>;
}

/** Decides after how many layers to yield. */
export class SlicePacer {
  /** Of one row in one layer, as the last slice went; the first slice is one layer. */
  #msPerRow = SLICE_MS;
  #rows = 1;
  #layers = 0;
  #inFlight: Slice | undefined;
  /** When the slice in flight began, at the latest: the one before was done. */
  #beganMs = 0;
  readonly #now: () => number;

  /** @param now a clock in milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Forgets how long slices took: nothing of them was computed. */
  forget(): void {
    this.#msPerRow = SLICE_MS;
  }

  /** Starts a pass of so many rows: the time since the last one does not count. */
  begin(rows: number): void {
    this.#rows = rows;
    this.#layers = 0;
    this.#inFlight = undefined;
    this.#beganMs = this.#now();
  }

  /**
   * To be called after each layer of a long pass; submits when the slice is full, and waits for the one before.
   * @throws {GpuError} what went wrong in that one; what does in the last slice shows when the pass is read
   */
  async afterLayer(commands: Pick<Commands, "submit"> & { readonly gpu: Pick<Gpu, "settle"> }): Promise<void> {
    this.#layers++;
    if ((this.#layers + 1) * this.#rows * this.#msPerRow <= SLICE_MS) return;
    commands.submit();
    const before = this.#inFlight;
    const endMs = commands.gpu.settle().then(() => this.#now());
    // The call that awaits this slice throws its error. If none does, the next check of the device reports it.
    endMs.catch(() => {});
    this.#inFlight = { layers: this.#layers, endMs };
    this.#layers = 0;
    if (before === undefined) return;
    const beforeEndMs = await before.endMs;
    this.#msPerRow = (beforeEndMs - this.#beganMs) / (before.layers * this.#rows);
    this.#beganMs = beforeEndMs;
  }
}
