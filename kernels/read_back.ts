/**
 * Bytes from the GPU. An awaited `mapAsync` sleeps 10 ms in Deno after the queue is idle; but the poll before that sleep
 * has already mapped the buffer, so its range can be read at once. That is an implementation detail: tested at start,
 * with the awaited map as the way back, which is the only way where the provider's traits say so. The un-awaited promises
 * are kept and awaited on close.
 */

import { at } from "./at.ts";
import type { GpuTraits } from "./provider.ts";
import { waiterFor, type WaitOptions } from "./turning.ts";

/** Bytes of one buffer. */
export interface ByteRange {
  readonly buffer: GPUBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** Copies that were recorded into a staging buffer, and where in it they lie. */
export interface StagedRead {
  readonly staging: GPUBuffer;
  readonly ranges: readonly ByteRange[];
  readonly offsets: readonly number[];
  readonly totalBytes: number;
}

const SLOTS = 16;
const MIN_BYTES = 4096;

/** How staged copies are waited for. */
export interface ReadWait<Memory extends ArrayBufferLike = ArrayBuffer> extends WaitOptions {
  /** Receives the bytes, `totalBytes` in all: memory that was never touched is slow to write. @default fresh memory */
  readonly into?: Uint8Array<Memory> | undefined;
}

/** A ring of staging buffers: a buffer is not used again before its own map promise had time to settle. */
export class StagingRing {
  readonly #device: GPUDevice;
  readonly #mapOnceBefore: boolean;
  readonly #readWaitsForAll: boolean;
  readonly #settled: ReturnType<typeof waiterFor>;
  readonly #slots: (GPUBuffer | undefined)[] = new Array(SLOTS).fill(undefined);
  readonly #pending = new Set<Promise<void>>();
  #next = 0;

  constructor(device: GPUDevice, traits: Pick<GpuTraits, "mapOnceBefore" | "readWaitsForAll" | "settlesByTurns">) {
    this.#device = device;
    this.#mapOnceBefore = traits.mapOnceBefore;
    this.#readWaitsForAll = traits.readWaitsForAll;
    this.#settled = waiterFor(traits);
  }

  /** Whether the un-awaited map yields the right bytes here. */
  async selfTest(): Promise<boolean> {
    const source = this.#device.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
    try {
      for (let round = 1; round <= 8; round++) {
        this.#device.queue.writeBuffer(source, 0, new Uint32Array([round, 2 * round, 3 * round, 4 * round]));
        const [bytes] = await this.read([{ buffer: source, byteOffset: 0, byteLength: 16 }], round > 1);
        const words = new Uint32Array(bytes?.buffer ?? new ArrayBuffer(16));
        if (words.some((word, i) => word !== (i + 1) * round)) return false;
      }
      return true;
    } finally {
      source.destroy();
    }
  }

  /** Copies ranges to the host once everything submitted has run; with no range it only waits. */
  async read(ranges: readonly ByteRange[], fast: boolean): Promise<Uint8Array<ArrayBuffer>[]> {
    const encoder = this.#device.createCommandEncoder();
    const staged = this.stage(encoder, ranges);
    this.#device.queue.submit([encoder.finish()]);
    return await this.finish(staged, { fast });
  }

  /** Records the copies of ranges, to be submitted before `finish`. */
  stage(encoder: GPUCommandEncoder, ranges: readonly ByteRange[]): StagedRead {
    const offsets: number[] = [];
    let totalBytes = 0;
    for (const { byteLength } of ranges) {
      offsets.push(totalBytes);
      totalBytes += Math.ceil(byteLength / 16) * 16;
    }
    const staging = this.#slot(Math.max(totalBytes, 16));
    ranges.forEach(({ buffer, byteOffset, byteLength }, i) => {
      const size = Math.ceil(byteLength / 4) * 4;
      if (size > 0) encoder.copyBufferToBuffer(buffer, byteOffset, staging, at(offsets, i), size);
    });
    return { staging, ranges, offsets, totalBytes };
  }

  /**
   * Waits for what was staged and submitted.
   * @returns the ranges' bytes, in order
   */
  async finish<Memory extends ArrayBufferLike = ArrayBuffer>(
    { staging, ranges, offsets, totalBytes }: StagedRead,
    { fast, into, ...wait }: ReadWait<Memory> & { readonly fast: boolean },
  ): Promise<Uint8Array<ArrayBuffer | Memory>[]> {
    // A map that nothing is copied into may settle at once; it still has the device give back what was freed.
    if (ranges.length === 0 && !this.#readWaitsForAll) await this.#settled(this.#device.queue.onSubmittedWorkDone());
    await this.#map(staging, { fast, ...wait });
    try {
      const mapped = new Uint8Array(staging.getMappedRange(0, Math.max(totalBytes, 16)));
      return ranges.map(({ byteLength }, i) => {
        const start = at(offsets, i);
        if (into === undefined) return mapped.slice(start, start + byteLength);
        into.set(mapped.subarray(start, start + byteLength), start);
        return into.subarray(start, start + byteLength);
      });
    } finally {
      staging.unmap();
    }
  }

  /** Waits until the maps of all reads have settled: they outlive what was read by them. */
  async mapsSettled(): Promise<void> {
    await Promise.all(this.#pending);
  }

  /** Awaits the pending maps and destroys the ring. */
  async close(): Promise<void> {
    await this.mapsSettled();
    for (const buffer of this.#slots) buffer?.destroy();
    this.#slots.fill(undefined);
  }

  async #map(staging: GPUBuffer, { fast, ...wait }: WaitOptions & { readonly fast: boolean }): Promise<void> {
    const mapped = staging.mapAsync(GPUMapMode.READ);
    if (!fast) return await this.#settled(mapped, wait);
    // The promise rejects when the buffer is unmapped before it settles: expected on this path.
    const settled: Promise<void> = mapped.catch(() => {}).then(() => {
      this.#pending.delete(settled);
    });
    this.#pending.add(settled);
  }

  #slot(byteLength: number): GPUBuffer {
    const index = this.#next;
    this.#next = (index + 1) % SLOTS;
    const present = this.#slots[index];
    if (present !== undefined && present.size >= byteLength) return present;
    const size = Math.max(MIN_BYTES, 2 ** Math.ceil(Math.log2(byteLength)));
    const buffer = this.#device.createBuffer({
      label: `staging ${index}`,
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      mappedAtCreation: this.#mapOnceBefore,
    });
    if (this.#mapOnceBefore) buffer.unmap();
    present?.destroy();
    this.#slots[index] = buffer;
    return buffer;
  }
}

/**
 * Bytes that were read back, as u32. Does not copy.
 * @throws {RangeError} when there are none: they were not asked for
 */
export function u32Of(bytes: Uint8Array<ArrayBuffer> | undefined): Uint32Array<ArrayBuffer> {
  return new Uint32Array(bufferOf(bytes));
}

/** The same as f32. */
export function f32Of(bytes: Uint8Array<ArrayBuffer> | undefined): Float32Array<ArrayBuffer> {
  return new Float32Array(bufferOf(bytes));
}

function bufferOf(bytes: Uint8Array<ArrayBuffer> | undefined): ArrayBuffer {
  if (bytes === undefined) throw new RangeError("Cannot view bytes from the GPU: they were not read");
  return bytes.buffer;
}
