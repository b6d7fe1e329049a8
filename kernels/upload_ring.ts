/**
 * Memory that a file can be read into and the GPU copies from, used again and again: memory that was never touched takes ten
 * times as long to fill as a file to read, and a write through the queue would copy everything once more. Knows bytes.
 */

import type { Gpu } from "./gpu.ts";
import type { Tensor } from "./tensor.ts";

/** One piece of the ring, mapped until it is handed over. */
export interface UploadSlot {
  /** To be filled; gone once the slot is handed over. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** What copies read, after `handOver`. */
  readonly staging: Tensor;
}

/** A few slots of equal size. To be closed when no copy is being recorded. */
export class UploadRing {
  readonly #gpu: Gpu;
  readonly #bytes: number;
  readonly #buffers: GPUBuffer[];
  /** Of each slot, in turn: resolves when the GPU has read what was in it. */
  readonly #free: Promise<GPUBuffer>[];

  /** @param shape `bytes` of a slot: a multiple of 4 */
  constructor(gpu: Gpu, { slots, bytes }: { readonly slots: number; readonly bytes: number }) {
    this.#gpu = gpu;
    this.#bytes = bytes;
    this.#buffers = Array.from(
      { length: slots },
      (_, i) =>
        gpu.device.createBuffer({
          label: `upload ${i}`,
          size: bytes,
          usage: GPUBufferUsage.MAP_WRITE | GPUBufferUsage.COPY_SRC,
          mappedAtCreation: true,
        }),
    );
    this.#free = this.#buffers.map((buffer) => Promise.resolve(buffer));
  }

  /** Bytes of a slot. */
  get slotBytes(): number {
    return this.#bytes;
  }

  /** The next slot, once the GPU has read what was in it. Each must be handed over, and in the order in which they were taken. */
  async take(): Promise<UploadSlot> {
    const free = this.#free.shift();
    if (free === undefined) throw new Error("Cannot take a slot of an upload ring: all of them are taken");
    const buffer = await free;
    const bytes = new Uint8Array(buffer.getMappedRange());
    const staging = { buffer, byteOffset: 0, byteLength: this.#bytes, dtype: "u32", shape: [this.#bytes / 4] } as const;
    return { bytes, staging: { ...staging, label: buffer.label } };
  }

  /** Before copies from a slot are submitted. */
  handOver({ staging: { buffer } }: UploadSlot): void {
    buffer.unmap();
  }

  /** After they were submitted: the slot may be taken again. */
  giveBack({ staging: { buffer } }: UploadSlot): void {
    const mapped = this.#gpu.settled(buffer.mapAsync(GPUMapMode.WRITE)).then(() => buffer);
    // The next user of the slot gets the error; if the device is lost, there may be none.
    mapped.catch(() => {});
    this.#free.push(mapped);
  }

  /** Waits for pending maps, and frees the memory. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#free.splice(0));
    for (const buffer of this.#buffers.splice(0)) buffer.destroy();
  }
}
