/**
 * Keeps long work in slices: submits after a few layers and lets the queue drain, so that no submit holds the GPU, and
 * no wait holds the event loop, for much longer than the bound. Measures; knows nothing of what is computed.
 */

import type { Gpu } from "../../kernels/gpu.ts";
import type { Commands } from "../../kernels/pipeline.ts";

/** A display's watchdog, other processes and this process's event loop all need a turn at least this often. */
const SLICE_MS = 50;

/** Decides after how many layers to yield. */
export class SlicePacer {
  /** Of one row in one layer, as the last slice went; the first slice is one layer. */
  #msPerRow = SLICE_MS;
  #rows = 1;
  #layers = 0;
  #sliceStart = 0;
  readonly #now: () => number;

  /** @param now a clock in milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Starts a pass of so many rows: the time since the last one does not count. */
  begin(rows: number): void {
    this.#rows = rows;
    this.#layers = 0;
    this.#sliceStart = this.#now();
  }

  /** To be called after each layer of a long pass; waits for the GPU when the slice is full. */
  async afterLayer(commands: Pick<Commands, "submit"> & { readonly gpu: Pick<Gpu, "settle"> }): Promise<void> {
    this.#layers++;
    if ((this.#layers + 1) * this.#rows * this.#msPerRow <= SLICE_MS) return;
    commands.submit();
    await commands.gpu.settle();
    const now = this.#now();
    this.#msPerRow = (now - this.#sliceStart) / (this.#layers * this.#rows);
    this.#layers = 0;
    this.#sliceStart = now;
  }
}
