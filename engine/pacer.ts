/**
 * Keeps long work in slices: submits after a few layers and lets the queue drain, so that no submit holds the GPU, and
 * no wait holds the event loop, for much longer than the bound. Measures; knows nothing of what is computed.
 */

import type { Commands } from "../kernels/pipeline.ts";

/** A display's watchdog, other processes and this process's event loop all want a turn at least this often. */
const SLICE_MS = 50;

/** Decides after how many layers to stop for breath. */
export class SlicePacer {
  #layersPerSlice = 1;
  #layers = 0;
  #sliceStart = performance.now();

  /** Starts a pass: the time since the last one does not count. */
  begin(): void {
    this.#layers = 0;
    this.#sliceStart = performance.now();
  }

  /** To be called after each layer of a long pass; waits for the GPU when the slice is full. */
  async afterLayer(commands: Commands): Promise<void> {
    this.#layers++;
    if (this.#layers < this.#layersPerSlice) return;
    commands.submit();
    await commands.gpu.settle();
    const now = performance.now();
    const msPerLayer = Math.max(0.01, (now - this.#sliceStart) / this.#layers);
    this.#layersPerSlice = Math.max(1, Math.min(64, Math.floor(SLICE_MS / msPerLayer)));
    this.#layers = 0;
    this.#sliceStart = now;
  }
}
