/**
 * From WGSL to dispatches: kernels compiled once, bind groups made once, parameters in one uniform arena, commands
 * recorded into one pass until they are submitted. Knows shaders and buffers; knows nothing of what they compute.
 */

import { GpuError } from "./errors.ts";
import type { Gpu } from "./gpu.ts";
import type { ShaderNeed } from "./provider.ts";
import type { Tensor } from "./tensor.ts";

/** A parameter's name and WGSL scalar type, in the order of the generated struct `Params`. */
export type ParamField = readonly [name: string, type: "u32" | "i32" | "f32"];

/** A storage binding: `type` is its WGSL store type, e.g. `array<vec4<f32>>`. */
export interface BindingSpec {
  readonly name: string;
  readonly type: string;
  readonly access: "read" | "read_write";
}

/** A kernel before compilation. The declarations of bindings and of `params` are generated from this, in this order. */
export interface KernelSpec {
  readonly bindings: readonly BindingSpec[];
  readonly params: readonly ParamField[];
  /** Words of `params.list`, an `array<vec4<u32>>` behind the other parameters; a multiple of 4. @default no list */
  readonly listWords?: number;
  /** Features that the source uses; the lines that enable them are generated, in this order. @default none */
  readonly needs?: readonly ShaderNeed[];
  /** WGSL with an entry point `main`. */
  readonly source: string;
}

/** A compiled kernel. */
export interface Kernel {
  readonly name: string;
  readonly spec: KernelSpec;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

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

const SLOT_BYTES = 256;
const ARENA_SLOTS = 2048;
const MAX_GROUPS = 65535;
const LITTLE_ENDIAN = true;

/** Records dispatches and submits them in order. One per device, used by one thread. */
export class Commands {
  readonly gpu: Gpu;
  readonly #kernels = new Map<string, Kernel>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #bindGroups = new Map<string, GPUBindGroup>();
  readonly #groupsOfBuffer = new Map<GPUBuffer, Set<string>>();
  readonly #bufferIds = new WeakMap<GPUBuffer, number>();
  readonly #arena: GPUBuffer;
  readonly #slots = new DataView(new ArrayBuffer(ARENA_SLOTS * SLOT_BYTES));
  readonly #dynamicOffset = new Uint32Array(1);
  #nextBufferId = 0;
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
    gpu.onFree((buffer) => this.#forget(buffer));
  }

  /**
   * The kernel of that name, compiled at its first use. The name must tell every variant of the source apart.
   * @throws {GpuError} `shader_error` with the compiler's message
   */
  kernel(name: string, spec: () => KernelSpec): Kernel {
    const known = this.#kernels.get(name);
    if (known !== undefined) return known;
    const made = this.#compile(name, spec());
    this.#kernels.set(name, made);
    return made;
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
    pass.setBindGroup(0, this.#bindGroup(kernel, tensors), this.#dynamicOffset, 0, 1);
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

  #compile(name: string, spec: KernelSpec): Kernel {
    const words = spec.listWords === undefined ? spec.params.length : listOffset(spec) / 4 + spec.listWords;
    if (words * 4 > SLOT_BYTES) {
      throw new GpuError(
        "shader_error",
        `Cannot compile ${name}: ${words} parameter words exceed ${SLOT_BYTES / 4}`,
      );
    }
    const layout = this.#layout(spec);
    const { device } = this.gpu;
    const code = this.#enables(name, spec) + declarations(spec) + spec.source;
    const module = device.createShaderModule({ label: name, code });
    const pipeline = device.createComputePipeline({
      label: name,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main" },
    });
    return { name, spec, pipeline, layout };
  }

  /** What the provider wants in front of a shader. */
  #enables(name: string, { needs = [] }: KernelSpec): string {
    const { traits: { enables }, info: { provider, adapter } } = this.gpu;
    return needs.map((need) => {
      const line = enables[need];
      if (line !== undefined) return `${line}\n`;
      throw new GpuError(
        "shader_error",
        `Cannot compile ${name}: it needs ${need}, which ${adapter} lacks (${provider})`,
      );
    }).join("");
  }

  #layout(spec: KernelSpec): GPUBindGroupLayout {
    const key = spec.bindings.map(({ access }) => (access === "read" ? "r" : "w")).join("");
    const known = this.#layouts.get(key);
    if (known !== undefined) return known;
    const entries: GPUBindGroupLayoutEntry[] = spec.bindings.map(({ access }, binding) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: access === "read" ? "read-only-storage" : "storage" },
    }));
    entries.push({
      binding: spec.bindings.length,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: "uniform", hasDynamicOffset: true },
    });
    const layout = this.gpu.device.createBindGroupLayout({ label: key, entries });
    this.#layouts.set(key, layout);
    return layout;
  }

  #bindGroup(kernel: Kernel, tensors: readonly Tensor[]): GPUBindGroup {
    if (tensors.length !== kernel.spec.bindings.length) {
      throw new GpuError(
        "invalid_shape",
        `Cannot dispatch ${kernel.name}: ${tensors.length} tensors given, expected ${kernel.spec.bindings.length}`,
      );
    }
    let key = kernel.layout.label;
    for (const { buffer, byteOffset, byteLength } of tensors) {
      key += `|${this.#idOf(buffer)}:${byteOffset}:${byteLength}`;
    }
    const known = this.#bindGroups.get(key);
    if (known !== undefined) return known;
    const entries: GPUBindGroupEntry[] = tensors.map(({ buffer, byteOffset, byteLength }, binding) => ({
      binding,
      resource: { buffer, offset: byteOffset, size: byteLength },
    }));
    entries.push({ binding: tensors.length, resource: { buffer: this.#arena, size: SLOT_BYTES } });
    const group = this.gpu.device.createBindGroup({ layout: kernel.layout, entries });
    this.#bindGroups.set(key, group);
    for (const { buffer } of tensors) {
      const keys = this.#groupsOfBuffer.get(buffer) ?? new Set();
      this.#groupsOfBuffer.set(buffer, keys.add(key));
    }
    return group;
  }

  #idOf(buffer: GPUBuffer): number {
    const known = this.#bufferIds.get(buffer);
    if (known !== undefined) return known;
    const id = this.#nextBufferId++;
    this.#bufferIds.set(buffer, id);
    return id;
  }

  #forget(buffer: GPUBuffer): void {
    for (const key of this.#groupsOfBuffer.get(buffer) ?? []) this.#bindGroups.delete(key);
    this.#groupsOfBuffer.delete(buffer);
  }
}

/** Bytes of the parameters before the list, which is aligned as its vectors are. */
function listOffset({ params }: KernelSpec): number {
  return Math.ceil(params.length / 4) * 16;
}

function declarations(spec: KernelSpec): string {
  const { listWords = 0 } = spec;
  const fields = [
    ...spec.params.map(([name, type]) => `  ${name}: ${type},\n`),
    ...(listWords === 0 ? [] : [`  list: array<vec4<u32>, ${listWords / 4}>,\n`]),
  ].join("");
  const bindings = spec.bindings
    .map(({ name, type, access }, i) => `@group(0) @binding(${i}) var<storage, ${access}> ${name}: ${type};\n`)
    .join("");
  const uniform = `@group(0) @binding(${spec.bindings.length}) var<uniform> params: Params;\n`;
  return `struct Params {\n${fields}}\n${bindings}${uniform}`;
}
