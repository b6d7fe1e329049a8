/**
 * Large data on its way to the GPU through mapped buffers that are used again. A queue that is asked to write copies into memory of
 * its own, and takes fresh memory while what it wrote before is not yet copied: 16 MB took 10 ms on an H200 with Dawn, of which
 * the copy is 1. Knows buffers; knows nothing of what lies in them.
 */

import type { GpuTraits } from "./provider.ts";
import type { Tensor } from "./tensor.ts";
import { waiterFor } from "./turning.ts";

/** A buffer is mapped, or the GPU copies from it. */
interface Slot {
  readonly buffer: GPUBuffer;
  isMapped: boolean;
}

/** As many as may be on their way; what finds none free is left to the queue. */
const MAX_SLOTS = 12;
/** Below this a queue has memory ready. */
const MIN_BYTES = 256 << 10;
/** Of one buffer; what is larger takes several. */
const MAX_BYTES = 8 << 20;

/** The buffers of one device; `close` must be called. */
export class MappedWrites {
  readonly #device: GPUDevice;
  readonly #settled: ReturnType<typeof waiterFor>;
  /** Where a map is a copy of its own, a write costs less. */
  readonly #isWanted: boolean;
  readonly #slots: Slot[] = [];
  readonly #pending = new Set<Promise<void>>();

  constructor(device: GPUDevice, traits: Pick<GpuTraits, "settlesByTurns" | "mapsInPlace">) {
    this.#device = device;
    this.#settled = waiterFor(traits);
    this.#isWanted = traits.mapsInPlace;
  }

  /**
   * Brings data into a tensor, after what was submitted before and ahead of what is submitted next; by the queue what is small, or
   * finds no buffer.
   * @returns how many of its bytes took mapped buffers
   */
  write(to: Tensor, byteOffset: number, data: Uint8Array): number {
    const done = this.#writeMapped(to, byteOffset, data);
    if (done === data.length) return done;
    const rest = queueable(data.subarray(done));
    this.#device.queue.writeBuffer(to.buffer, to.byteOffset + byteOffset + done, rest);
    return done;
  }

  #writeMapped(to: Tensor, byteOffset: number, data: Uint8Array): number {
    const { byteLength } = data;
    if (!this.#isWanted || byteLength < MIN_BYTES || byteLength % 4 !== 0) return 0;
    const encoder = this.#device.createCommandEncoder();
    const filled: Slot[] = [];
    let done = 0;
    while (done < byteLength) {
      const size = Math.min(MAX_BYTES, byteLength - done);
      const slot = this.#take(size);
      if (slot === undefined) break;
      const { buffer } = slot;
      new Uint8Array(buffer.getMappedRange(0, size)).set(data.subarray(done, done + size));
      buffer.unmap();
      slot.isMapped = false;
      encoder.copyBufferToBuffer(buffer, 0, to.buffer, to.byteOffset + byteOffset + done, size);
      filled.push(slot);
      done += size;
    }
    if (done > 0) this.#device.queue.submit([encoder.finish()]);
    for (const slot of filled) this.#await(slot);
    return done;
  }

  /** Waits for the GPU, and frees the buffers. */
  async close(): Promise<void> {
    await Promise.all(this.#pending);
    for (const { buffer } of this.#slots.splice(0)) buffer.destroy();
  }

  #take(byteLength: number): Slot | undefined {
    const free = this.#slots.filter(({ isMapped }) => isMapped);
    const fitting = free.find(({ buffer }) => buffer.size >= byteLength);
    if (fitting !== undefined) return fitting;
    if (this.#slots.length === MAX_SLOTS) {
      const [small] = free;
      if (small === undefined) return undefined;
      small.buffer.destroy();
      this.#slots.splice(this.#slots.indexOf(small), 1);
    }
    const size = 2 ** Math.ceil(Math.log2(byteLength));
    const usage = GPUBufferUsage.MAP_WRITE | GPUBufferUsage.COPY_SRC;
    const slot = {
      buffer: this.#device.createBuffer({ label: "upload", size, usage, mappedAtCreation: true }),
      isMapped: true,
    };
    this.#slots.push(slot);
    return slot;
  }

  #await(slot: Slot): void {
    const mapped = this.#settled(slot.buffer.mapAsync(GPUMapMode.WRITE), { isPatient: true });
    // One that cannot be mapped is not used again; why shows at the next check of the device.
    const done: Promise<void> = mapped.then(() => void (slot.isMapped = true), () => {}).then(() =>
      void this.#pending.delete(done)
    );
    this.#pending.add(done);
  }
}

/** Bytes that a queue takes: no others than a multiple of 4, and none that several threads share. */
function queueable(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = bytes;
  if (byteLength % 4 === 0 && buffer instanceof ArrayBuffer) return new Uint8Array(buffer, byteOffset, byteLength);
  const padded = new Uint8Array(Math.ceil(byteLength / 4) * 4);
  padded.set(bytes);
  return padded;
}
