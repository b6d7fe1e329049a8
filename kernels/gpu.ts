/**
 * The device: limits, memory, read-back and its loss. Knows buffers and bytes; knows nothing of shaders or models.
 * GPU memory is invisible to the garbage collector, so every buffer is made and destroyed here.
 */

import { setImmediate } from "node:timers";
import { DENO } from "./deno_provider.ts";
import { GpuError } from "./errors.ts";
import { describeDevice, type GpuInfo } from "./gpu_info.ts";
import { computesRight } from "./matrix_self_test.ts";
import type { GpuProvider, GpuTraits, MatrixShape, OpenedDevice, ProviderName } from "./provider.ts";
import { f32Of, type ReadWait, type StagedRead, StagingRing, u32Of } from "./read_back.ts";
import { waiterFor } from "./turning.ts";
import { MappedWrites } from "./mapped_writes.ts";
import { type DType, paddedBytes, type Tensor } from "./tensor.ts";

export type { GpuInfo, ReadWait, StagedRead };

/** Bytes wanted from a tensor. */
export interface ReadRequest {
  readonly tensor: Tensor;
  /** A multiple of 4. @default 0 */
  readonly byteOffset?: number;
  /** @default the rest of the tensor */
  readonly byteLength?: number;
}

const STORAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/** One opened device, with everything allocated on it. */
export class Gpu {
  readonly device: GPUDevice;
  readonly traits: GpuTraits;
  #info: GpuInfo;
  #matrix: readonly MatrixShape[] = [];
  readonly #release: () => void;
  readonly #buffers = new Set<GPUBuffer>();
  readonly #freeListeners = new Set<(buffer: GPUBuffer) => void>();
  readonly #staging: StagingRing;
  /** Awaits a promise of the device's. */
  readonly settled: ReturnType<typeof waiterFor>;
  readonly #uploads: MappedWrites;
  #allocatedBytes = 0;
  #lost: GpuError | undefined;
  #closed = false;

  private constructor(provider: ProviderName, opened: OpenedDevice) {
    this.device = opened.device;
    this.traits = opened.traits;
    this.#info = describeDevice(provider, opened);
    this.#release = opened.release;
    this.settled = waiterFor(opened.traits);
    this.#staging = new StagingRing(opened.device, opened.traits);
    this.#uploads = new MappedWrites(opened.device, opened.traits);
    this.#openScopes();
    this.device.lost.then((lost) => {
      if (!this.#closed) {
        this.#lost = new GpuError("device_lost", `Cannot run GPU commands: the GPU was lost: ${lost.message}`);
      }
    });
  }

  /**
   * Opens the provider's first adapter with all the limits it has, and tests on it what cannot be taken on trust: the
   * fast read-back and the matrix units.
   * @throws {GpuError} `no_adapter` when there is none, `provider_unavailable` when the provider cannot be loaded
   */
  static async open(provider: GpuProvider = DENO): Promise<Gpu> {
    const opened = await provider.open();
    const gpu = new Gpu(provider.name, opened);
    try {
      const fastReadBack = opened.traits.mapAtOnce && await gpu.#staging.selfTest();
      const [matrix, faultyMatrix] = await testedShapes(gpu);
      gpu.#matrix = matrix;
      gpu.#info = { ...gpu.#info, fastReadBack, matrix, faultyMatrix };
      return gpu;
    } catch (error) {
      await gpu.close();
      throw error;
    }
  }

  get info(): GpuInfo {
    return this.#info;
  }

  /** Leaves matrix units unused, or uses them again where there are any: a group computes on all of its members' or on none. */
  useMatrices(wanted: boolean): void {
    this.#info = { ...this.#info, matrix: wanted ? this.#matrix : [] };
  }

  /** Bytes of all living buffers, staging excluded. */
  get allocatedBytes(): number {
    return this.#allocatedBytes;
  }

  /**
   * Allocates a zeroed tensor. Running out of memory shows at the next `check`.
   * @throws {GpuError} `out_of_gpu_memory` when one buffer cannot be that large
   */
  tensor(label: string, dtype: DType, shape: readonly number[]): Tensor {
    const byteLength = paddedBytes(dtype, shape);
    const bound = Math.min(this.#info.maxBindingBytes, this.#info.maxBufferBytes);
    if (byteLength > bound) {
      throw new GpuError(
        "out_of_gpu_memory",
        `Cannot allocate ${label}: ${byteLength} bytes exceed the ${bound} of one binding`,
      );
    }
    const buffer = this.buffer(label, byteLength, STORAGE);
    return { buffer, byteOffset: 0, byteLength, dtype, shape, label };
  }

  /** Allocates a buffer of any usage; prefer `tensor`. */
  buffer(label: string, size: number, usage: GPUBufferUsageFlags): GPUBuffer {
    const buffer = this.device.createBuffer({ label, size, usage });
    this.#buffers.add(buffer);
    this.#allocatedBytes += size;
    return buffer;
  }

  /** Uploads data into a tensor before the next submit; `Commands.write` keeps the order with what is recorded. */
  write(tensor: Tensor, data: ArrayBufferView, byteOffset = 0): void {
    expectRoom(tensor, data.byteLength, byteOffset);
    if (data.byteLength === 0) return;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.#uploads.write(tensor, byteOffset, bytes);
  }

  /** Calls back before a buffer is destroyed, so that caches can drop what refers to it. */
  onFree(listener: (buffer: GPUBuffer) => void): void {
    this.#freeListeners.add(listener);
  }

  /** Destroys a tensor's buffer. */
  free(tensor: Tensor): void {
    this.freeBuffer(tensor.buffer);
  }

  /** Destroys a buffer; harmless when it is gone already. */
  freeBuffer(buffer: GPUBuffer): void {
    if (!this.#buffers.delete(buffer)) return;
    for (const listener of this.#freeListeners) listener(buffer);
    this.#allocatedBytes -= buffer.size;
    buffer.destroy();
  }

  /**
   * Waits for everything submitted and returns fresh copies of the bytes asked for, in their order.
   * @throws {GpuError} the first thing that went wrong on the device since the last call
   */
  async read(requests: readonly ReadRequest[]): Promise<Uint8Array<ArrayBuffer>[]> {
    const encoder = this.device.createCommandEncoder();
    const staged = this.stageRead(encoder, requests);
    this.device.queue.submit([encoder.finish()]);
    return await this.finishRead(staged);
  }

  /** Records the copies of a read-back; they must be submitted before it is finished. */
  stageRead(encoder: GPUCommandEncoder, requests: readonly ReadRequest[]): StagedRead {
    return this.#staging.stage(
      encoder,
      requests.map(({ tensor, byteOffset = 0, byteLength }) => ({
        buffer: tensor.buffer,
        byteOffset: tensor.byteOffset + byteOffset,
        byteLength: byteLength ?? tensor.byteLength - byteOffset,
      })),
    );
  }

  /**
   * Waits for a read-back that was staged and submitted.
   * @returns fresh copies of the bytes asked for, in their order
   * @throws {GpuError} as `read`
   */
  async finishRead(staged: StagedRead): Promise<Uint8Array<ArrayBuffer>[]> {
    const checked = this.check();
    const { fastReadBack } = this.#info;
    // First, where it takes no time: a lost device or an invalid buffer cannot be mapped.
    if (fastReadBack) await checked;
    // Else both at once: each would wait for a turn of the event loop. What `check` finds explains why a map failed.
    const [checking, reading] = await Promise.allSettled([
      checked,
      this.#staging.finish(staged, { fast: fastReadBack }),
    ]);
    if (checking.status === "rejected") throw checking.reason;
    if (reading.status === "rejected") throw reading.reason;
    return reading.value;
  }

  /**
   * As `finishRead`, but leaves what else went wrong on the device to the next `check`: closing error scopes takes longer than
   * the read itself. For reads within a step, at whose end all is checked.
   * @throws {GpuError} what kept the bytes from being read
   */
  async takeRead<Memory extends ArrayBufferLike = ArrayBuffer>(
    staged: StagedRead,
    wait: ReadWait<Memory> = {},
  ): Promise<Uint8Array<ArrayBuffer | Memory>[]> {
    try {
      return await this.#staging.finish(staged, { ...wait, fast: this.#info.fastReadBack });
    } catch (error) {
      await this.check();
      throw error;
    }
  }

  /** Reads a u32 tensor, or a part of it. @throws {GpuError} as `read` */
  async readU32(request: ReadRequest): Promise<Uint32Array<ArrayBuffer>> {
    const [bytes] = await this.read([request]);
    return u32Of(bytes);
  }

  /** Reads an f32 tensor, or a part of it. @throws {GpuError} as `read` */
  async readF32(request: ReadRequest): Promise<Float32Array<ArrayBuffer>> {
    const [bytes] = await this.read([request]);
    return f32Of(bytes);
  }

  /** Waits until the queue is empty, and gives the event loop a turn. */
  async settle(): Promise<void> {
    await this.read([]);
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** Waits until no map of a read-back is pending any more: they outlive the reads, see `read_back.ts`. */
  async mapsSettled(): Promise<void> {
    await this.#staging.mapsSettled();
  }

  /** @throws {GpuError} the first thing that went wrong on the device since the last call */
  async check(): Promise<void> {
    // Closed and opened again without a turn of the event loop between: calls may overlap, and no error falls between scopes.
    const closed = [this.device.popErrorScope(), this.device.popErrorScope()] as const;
    this.#openScopes();
    const [outOfMemory, invalid] = await this.settled(Promise.all(closed));
    if (this.#lost !== undefined) throw this.#lost;
    if (outOfMemory !== null) {
      throw new GpuError(
        "out_of_gpu_memory",
        `Cannot allocate GPU memory: ${outOfMemory.message || "the device refused"}`,
      );
    }
    if (invalid !== null) throw new GpuError("shader_error", `Cannot run GPU commands: ${invalid.message.trim()}`);
  }

  /** Destroys every buffer and the device. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#staging.close();
    await this.#uploads.close();
    await this.settled(Promise.all([this.device.popErrorScope(), this.device.popErrorScope()]));
    for (const buffer of [...this.#buffers]) this.freeBuffer(buffer);
    this.device.destroy();
    this.#release();
  }

  /** Errors surface in the scopes that are open: `check` closes them and opens the next. */
  #openScopes(): void {
    this.device.pushErrorScope("validation");
    this.device.pushErrorScope("out-of-memory");
  }
}

/**
 * The shapes that kernels use, and those that compute wrong: the best one, and the same with fewer columns, for few rows. No
 * others are tried: smaller ones have crashed drivers.
 */
async function testedShapes(gpu: Gpu): Promise<[usable: readonly MatrixShape[], faulty: readonly MatrixShape[]]> {
  const shapes = gpu.traits.matrix.filter(({ result }) => result === "f32");
  const [best] = shapes;
  if (best === undefined) return [[], []];
  const narrow = shapes.find(({ m, n, k }) => m === best.m && k === best.k && n < best.n);
  const [usable, faulty]: [MatrixShape[], MatrixShape[]] = [[], []];
  for (const shape of narrow === undefined ? [best] : [best, narrow]) {
    (await computesRight(gpu, shape) ? usable : faulty).push(shape);
  }
  // Without the best one there are no matrix units: prompts and decode rows would run by different kinds of kernels.
  return usable[0] === best ? [usable, faulty] : [[], faulty];
}

function expectRoom({ label, byteLength: room }: Tensor, byteLength: number, byteOffset: number): void {
  if (byteOffset + byteLength <= room) return;
  throw new GpuError(
    "invalid_shape",
    `Cannot write ${label}: ${byteLength} bytes at ${byteOffset} exceed its ${room}`,
  );
}
