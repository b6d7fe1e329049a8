/**
 * From kernels to the queue: parameters in one uniform arena, commands recorded into one pass until they are submitted.
 * Knows kernels and buffers; knows nothing of what they compute.
 */

import { GpuError } from "./errors.ts";
import type { Gpu } from "./gpu.ts";
import { type Kernel, KernelCache, type KernelSpec, listOffset, SLOT_BYTES } from "./kernel_cache.ts";
import type { Tensor } from "./tensor.ts";

export type { BindingSpec, Kernel, KernelSpec, ParamField } from "./kernel_cache.ts";

/** What a dispatch binds, in the order of the spec, and its parameters by name. */
export interface Dispatch {
  readonly tensors: readonly Tensor[];
  readonly params: Readonly<Record<string, number>>;
  /** At most as many words as the kernel's list holds; those after them are undefined. @default none */
  readonly list?: readonly number[];
  /** Workgroups in x, y, z; any 0 means that there is nothing to do. */
  readonly groups: readonly [number, number, number];
}

/** Sees every pass and dispatch that is recorded while it is attached; see `timestamps.ts`. */
export interface PassObserver {
  /** Whether every dispatch gets a pass of its own, or passes stay as they are. */
  readonly unit: "dispatch" | "pass";
  /** How the pass that is about to open is described. */
  beginPass(): GPUComputePassDescriptor;
  record(kernel: Kernel, dispatch: Dispatch): void;
}

const ARENA_SLOTS = 2048;
const MAX_GROUPS = 65535;
const LITTLE_ENDIAN = true;

/** Records dispatches and submits them in order. One per device, used by one thread. */
export class Commands {
  readonly gpu: Gpu;
  readonly #cache: KernelCache;
  readonly #arena: GPUBuffer;
  readonly #slots = new DataView(new ArrayBuffer(ARENA_SLOTS * SLOT_BYTES));
  readonly #dynamicOffset = new Uint32Array(1);
  #usedSlots = 0;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #observer: PassObserver | undefined;

  constructor(gpu: Gpu) {
    this.gpu = gpu;
    this.#arena = gpu.buffer(
      "uniform arena",
      ARENA_SLOTS * SLOT_BYTES,
      GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    );
    this.#cache = new KernelCache(gpu, this.#arena);
  }

  /**
   * The kernel of that name, compiled at its first use. The name must tell every variant of the source apart.
   * @throws {GpuError} `shader_error` with the compiler's message
   */
  kernel(name: string, spec: () => KernelSpec): Kernel {
    return this.#cache.kernel(name, spec);
  }

  /** Records one dispatch. */
  dispatch(kernel: Kernel, { tensors, params, list = [], groups }: Dispatch): void {
    const [x, y, z] = groups;
    if (x === 0 || y === 0 || z === 0) return;
    if (x > MAX_GROUPS || y > MAX_GROUPS || z > MAX_GROUPS) {
      throw new GpuError("invalid_shape", `Cannot dispatch ${kernel.name}: groups [${groups}] exceed ${MAX_GROUPS}`);
    }
    if (this.#usedSlots === ARENA_SLOTS) this.submit();
    const slot = this.#usedSlots++;
    this.#writeParams(kernel, params, slot * SLOT_BYTES);
    this.#writeList(kernel, list, slot * SLOT_BYTES);
    this.#dynamicOffset[0] = slot * SLOT_BYTES;
    const pass = this.#openPass();
    pass.setPipeline(kernel.pipeline);
    pass.setBindGroup(0, this.#cache.bindGroup(kernel, tensors), this.#dynamicOffset, 0, 1);
    pass.dispatchWorkgroups(x, y, z);
    this.#observer?.record(kernel, { tensors, params, list, groups });
    if (this.#observer?.unit === "dispatch") this.#closePass();
  }

  /** Has what is recorded from here on observed; undefined ends it. What was recorded before is submitted. */
  observe(observer: PassObserver | undefined): void {
    this.submit();
    this.#observer = observer;
  }

  /** Records a copy between tensors, after what was recorded before it. */
  copy(
    from: Tensor,
    to: Tensor,
    range: { readonly from?: number; readonly to?: number; readonly byteLength: number },
  ): void {
    if (range.byteLength === 0) return;
    this.#closePass();
    this.#openEncoder().copyBufferToBuffer(
      from.buffer,
      from.byteOffset + (range.from ?? 0),
      to.buffer,
      to.byteOffset + (range.to ?? 0),
      range.byteLength,
    );
  }

  /**
   * Uploads data into a tensor, after what was recorded before and before what is recorded next. Submits: a queue runs
   * its writes ahead of commands that are still being recorded.
   */
  write(tensor: Tensor, data: BufferSource & ArrayBufferView<ArrayBuffer>, byteOffset = 0): void {
    this.submit();
    this.gpu.write(tensor, data, byteOffset);
  }

  /** Submits what was recorded; does not wait. */
  submit(): void {
    this.#closePass();
    const encoder = this.#encoder;
    this.#encoder = undefined;
    if (encoder === undefined) return;
    const { queue } = this.gpu.device;
    if (this.#usedSlots > 0) queue.writeBuffer(this.#arena, 0, this.#slots.buffer, 0, this.#usedSlots * SLOT_BYTES);
    this.#usedSlots = 0;
    queue.submit([encoder.finish()]);
  }

  #openEncoder(): GPUCommandEncoder {
    this.#encoder ??= this.gpu.device.createCommandEncoder();
    return this.#encoder;
  }

  #openPass(): GPUComputePassEncoder {
    this.#pass ??= this.#openEncoder().beginComputePass(this.#observer?.beginPass());
    return this.#pass;
  }

  #closePass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  #writeParams(kernel: Kernel, params: Readonly<Record<string, number>>, at: number): void {
    let offset = at;
    for (const [name, type] of kernel.spec.params) {
      const value = params[name];
      if (value === undefined || Number.isNaN(value)) {
        throw new GpuError("invalid_shape", `Cannot dispatch ${kernel.name}: parameter ${name} is ${value}`);
      }
      if (type === "f32") this.#slots.setFloat32(offset, value, LITTLE_ENDIAN);
      else if (type === "u32") this.#slots.setUint32(offset, value, LITTLE_ENDIAN);
      else this.#slots.setInt32(offset, value, LITTLE_ENDIAN);
      offset += 4;
    }
  }

  #writeList({ name, spec }: Kernel, list: readonly number[], at: number): void {
    const { listWords = 0 } = spec;
    if (list.length > listWords) {
      throw new GpuError(
        "invalid_shape",
        `Cannot dispatch ${name}: a list of ${list.length} words exceeds ${listWords}`,
      );
    }
    for (const [i, word] of list.entries()) this.#slots.setUint32(at + listOffset(spec) + i * 4, word, LITTLE_ENDIAN);
  }
}
