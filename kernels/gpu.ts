/**
 * The device: limits, memory, read-back and its loss. Knows buffers and bytes; knows nothing of shaders or models.
 * GPU memory is invisible to the garbage collector, so every buffer is made and destroyed here.
 */

import { setImmediate } from "node:timers";
import { GpuError } from "./errors.ts";
import { type DType, paddedBytes, type Tensor } from "./tensor.ts";
import { f32Of, StagingRing, u32Of } from "./read_back.ts";

/** What the adapter is and can do, probed at start. */
export interface GpuInfo {
  readonly adapter: string;
  readonly vendor: string;
  /** Whether it computes on the CPU. */
  readonly software: boolean;
  readonly subgroups: boolean;
  readonly shaderF16: boolean;
  /** Whether passes can be timed on the GPU's clock. */
  readonly timestamps: boolean;
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
  readonly maxWorkgroupBytes: number;
  readonly maxInvocations: number;
  /** Whether mapped ranges can be read without awaiting the map, which saves 11 ms a read-back. */
  readonly fastReadBack: boolean;
}

/** Bytes wanted from a tensor. */
export interface ReadRequest {
  readonly tensor: Tensor;
  /** A multiple of 4. @default 0 */
  readonly byteOffset?: number;
  /** @default the rest of the tensor */
  readonly byteLength?: number;
}

const REQUESTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
] as const;

const STORAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/** One opened device, with everything allocated on it. */
export class Gpu {
  readonly device: GPUDevice;
  #info: GpuInfo;
  readonly #buffers = new Set<GPUBuffer>();
  readonly #freeListeners = new Set<(buffer: GPUBuffer) => void>();
  readonly #staging: StagingRing;
  #allocatedBytes = 0;
  #lost: GpuError | undefined;
  #closed = false;

  private constructor(device: GPUDevice, info: GpuInfo) {
    this.device = device;
    this.#info = info;
    this.#staging = new StagingRing(device);
    this.#openScopes();
    device.lost.then((lost) => {
      if (!this.#closed) {
        this.#lost = new GpuError("device_lost", `Cannot run GPU commands: the GPU was lost: ${lost.message}`);
      }
    });
  }

  /**
   * Opens the first adapter with all the limits it has, and tests the fast read-back on it.
   * @throws {GpuError} `no_adapter` when there is none
   */
  static async open(): Promise<Gpu> {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) {
      throw new GpuError(
        "no_adapter",
        "Cannot open a GPU: no adapter was found (on Debian: apt-get install libvulkan1 mesa-vulkan-drivers)",
      );
    }
    const subgroups = await supportsSubgroups();
    const shaderF16 = adapter.features.has("shader-f16");
    const timestamps = adapter.features.has("timestamp-query");
    const requiredFeatures = [
      ...(subgroups ? ["subgroups"] : []),
      ...(shaderF16 ? ["shader-f16"] : []),
      ...(timestamps ? ["timestamp-query"] : []),
    ];
    const requiredLimits: Record<string, number> = {};
    for (const name of REQUESTED_LIMITS) requiredLimits[name] = Number(adapter.limits[name]);
    const device = await adapter.requestDevice({
      requiredFeatures: requiredFeatures as GPUFeatureName[],
      requiredLimits,
    });
    const gpu = new Gpu(device, describe(adapter, device, { subgroups, shaderF16, timestamps }));
    gpu.#info = { ...gpu.#info, fastReadBack: await gpu.#staging.selfTest() };
    return gpu;
  }

  get info(): GpuInfo {
    return this.#info;
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
  write(tensor: Tensor, data: BufferSource & ArrayBufferView<ArrayBuffer>, byteOffset = 0): void {
    if (byteOffset + data.byteLength > tensor.byteLength) {
      throw new GpuError(
        "invalid_shape",
        `Cannot write ${tensor.label}: ${data.byteLength} bytes at ${byteOffset} exceed its ${tensor.byteLength}`,
      );
    }
    if (data.byteLength === 0) return;
    const padding = data.byteLength % 4;
    if (padding === 0) {
      this.device.queue.writeBuffer(tensor.buffer, tensor.byteOffset + byteOffset, data);
      return;
    }
    const padded = new Uint8Array(data.byteLength + 4 - padding);
    padded.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.device.queue.writeBuffer(tensor.buffer, tensor.byteOffset + byteOffset, padded);
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
    // Before the read-back: a lost device or an invalid buffer cannot be mapped.
    await this.check();
    const ranges = requests.map(({ tensor, byteOffset = 0, byteLength }) => ({
      buffer: tensor.buffer,
      byteOffset: tensor.byteOffset + byteOffset,
      byteLength: byteLength ?? tensor.byteLength - byteOffset,
    }));
    return await this.#staging.read(ranges, this.#info.fastReadBack);
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

  /** @throws {GpuError} the first thing that went wrong on the device since the last call */
  async check(): Promise<void> {
    // Closed and opened again without a turn of the event loop between: calls may overlap, and no error falls between scopes.
    const closed = [this.device.popErrorScope(), this.device.popErrorScope()] as const;
    this.#openScopes();
    const [outOfMemory, invalid] = await Promise.all(closed);
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
    await this.device.popErrorScope();
    await this.device.popErrorScope();
    for (const buffer of [...this.#buffers]) this.freeBuffer(buffer);
    this.device.destroy();
  }

  /** Errors surface in the scopes that are open: `check` closes them and opens the next. */
  #openScopes(): void {
    this.device.pushErrorScope("validation");
    this.device.pushErrorScope("out-of-memory");
  }
}

function describe(
  adapter: GPUAdapter,
  device: GPUDevice,
  features: { subgroups: boolean; shaderF16: boolean; timestamps: boolean },
): GpuInfo {
  const { device: name, description, vendor } = adapter.info;
  return {
    adapter: description || name || vendor || "unnamed adapter",
    vendor,
    software: adapter.info.isFallbackAdapter ||
      /llvmpipe|lavapipe|swiftshader|software/i.test(`${name} ${description}`),
    ...features,
    // Vulkan may report more than wgpu validates, and a binding must be a multiple of 4.
    maxBindingBytes: Math.floor(Number(device.limits.maxStorageBufferBindingSize) / 16) * 16,
    maxBufferBytes: Number(device.limits.maxBufferSize),
    maxWorkgroupBytes: Number(device.limits.maxComputeWorkgroupStorageSize),
    maxInvocations: Number(device.limits.maxComputeInvocationsPerWorkgroup),
    fastReadBack: false,
  };
}

/** The feature is hidden from `adapter.features` but can be requested; asking a second adapter does not spend the first. */
async function supportsSubgroups(): Promise<boolean> {
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) return false;
  try {
    const device = await adapter.requestDevice({ requiredFeatures: ["subgroups" as GPUFeatureName] });
    device.destroy();
    return true;
  } catch (error) {
    // A TypeError or an operation error is how a device says that it lacks the feature.
    if (error instanceof Error) return false;
    throw error;
  }
}
