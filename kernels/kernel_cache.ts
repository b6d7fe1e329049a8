/**
 * What a device makes once and keeps: compiled kernels, their layouts, and bind groups until a buffer in them is freed.
 * Knows shaders and buffers; records nothing.
 */

import { Concurrently } from "./concurrently.ts";
import { GpuError, messageOf } from "./errors.ts";
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
  /** Words of `params.list`, an `array<vec4<u32>>` after the other parameters; a multiple of 4. @default no list */
  readonly listWords?: number;
  /** Features that the source uses; the lines that enable them are generated, in this order. @default none */
  readonly needs?: readonly ShaderNeed[];
  /** WGSL with an entry point `main`. */
  readonly source: string;
}

/** Where the offset of a dispatch's parameters in the arena is given: with each dispatch, or once and for all in its bind group. */
export type OffsetPlace = "dispatch" | "group";

/** A kernel. */
export interface Kernel {
  readonly name: string;
  readonly spec: KernelSpec;
  readonly offsetIn: OffsetPlace;
  readonly layout: GPUBindGroupLayout;
  /** Undefined while it is being compiled ahead. */
  readonly pipeline: GPUComputePipeline | undefined;
}

/** A kernel in the making. */
type OpenKernel = Kernel & { pipeline: GPUComputePipeline | undefined };

/** Bytes of a dispatch's parameters: the smallest distance of two uniform offsets that every adapter allows. */
export const SLOT_BYTES = 256;

/** Of a model of 80 layers, those of some twenty shapes of steps. */
const MAX_BIND_GROUPS = 16_384;

/** The kernels of one device. */
export class KernelCache {
  readonly #gpu: Gpu;
  readonly #arena: GPUBuffer;
  readonly #kernels: Readonly<Record<OffsetPlace, Map<string, Kernel>>> = { dispatch: new Map(), group: new Map() };
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #bindGroups = new Map<string, GPUBindGroup>();
  readonly #groupsOfBuffer = new Map<GPUBuffer, Set<string>>();
  readonly #bufferIds = new WeakMap<GPUBuffer, number>();
  #nextBufferId = 0;
  /** Of kernels that are compiled ahead. */
  #compiling: Concurrently | undefined;

  /** @param arena the uniform buffer whose slots hold the parameters of dispatches */
  constructor(gpu: Gpu, arena: GPUBuffer) {
    this.#gpu = gpu;
    this.#arena = arena;
    gpu.onFree((buffer) => this.#forget(buffer));
  }

  /** Kernels compiled so far. */
  get size(): number {
    return this.#kernels.dispatch.size + this.#kernels.group.size;
  }

  /** Whether kernels are only asked for: nothing that is dispatched runs. */
  get isCompilingAhead(): boolean {
    return this.#compiling !== undefined;
  }

  /**
   * The kernel of that name, compiled at its first use for each place of offsets. Every variant of the source must have a name of
   * its own.
   * @throws {GpuError} `shader_error` with the compiler's message
   */
  kernel(name: string, spec: () => KernelSpec, offsetIn: OffsetPlace = "dispatch"): Kernel {
    const kernels = this.#kernels[offsetIn];
    const known = kernels.get(name);
    if (known !== undefined) return known;
    const made = this.#make(name, spec(), offsetIn);
    kernels.set(name, made);
    return made;
  }

  /**
   * Compiles all kernels that `record` asks for, several at a time. What it dispatches does not run: what it reads back is
   * undefined, and programs that it makes are empty.
   * @throws {GpuError} `shader_error`: of the first that cannot be compiled
   * @throws what `record` throws
   */
  async compileAhead(record: () => Promise<void>): Promise<void> {
    if (this.isCompilingAhead) throw new Error("Cannot compile kernels ahead: others are being compiled");
    const compiling = new Concurrently(navigator.hardwareConcurrency);
    this.#compiling = compiling;
    try {
      await record();
    } finally {
      await this.#gpu.settled(compiling.ended(), { isPatient: true });
      this.#compiling = undefined;
    }
    // Has the compiler's message where a shader is wrong.
    await this.#gpu.check();
    compiling.rethrow();
  }

  /**
   * The bind group of a kernel's tensors, in the order of its bindings, with a slot of the arena after them.
   * @param slot its offset, where the kernel takes it from the group; else 0
   * @throws {GpuError} `invalid_shape` when their number is not that of the bindings
   */
  bindGroup(kernel: Kernel, tensors: readonly Tensor[], slot: number): GPUBindGroup {
    if (tensors.length !== kernel.spec.bindings.length) {
      throw new GpuError(
        "invalid_shape",
        `Cannot dispatch ${kernel.name}: ${tensors.length} tensors given, expected ${kernel.spec.bindings.length}`,
      );
    }
    let key = `${kernel.layout.label} ${slot}`;
    for (const { buffer, byteOffset, byteLength } of tensors) {
      key += `|${this.#idOf(buffer)}:${byteOffset}:${byteLength}`;
    }
    const known = this.#bindGroups.get(key);
    if (known !== undefined) return known;
    const entries: GPUBindGroupEntry[] = tensors.map(({ buffer, byteOffset, byteLength }, binding) => ({
      binding,
      resource: { buffer, offset: byteOffset, size: byteLength },
    }));
    entries.push({ binding: tensors.length, resource: { buffer: this.#arena, offset: slot, size: SLOT_BYTES } });
    const group = this.#gpu.device.createBindGroup({ layout: kernel.layout, entries });
    if (this.#bindGroups.size === MAX_BIND_GROUPS) this.#forgetAll();
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

  /** Programs keep theirs; the others are made again as they are needed. */
  #forgetAll(): void {
    this.#bindGroups.clear();
    this.#groupsOfBuffer.clear();
  }

  #forget(buffer: GPUBuffer): void {
    for (const key of this.#groupsOfBuffer.get(buffer) ?? []) this.#bindGroups.delete(key);
    this.#groupsOfBuffer.delete(buffer);
  }

  #make(name: string, spec: KernelSpec, offsetIn: OffsetPlace): Kernel {
    const words = spec.listWords === undefined ? spec.params.length : listOffset(spec) / 4 + spec.listWords;
    if (words * 4 > SLOT_BYTES) {
      throw new GpuError(
        "shader_error",
        `Cannot compile ${name}: ${words} parameter words exceed ${SLOT_BYTES / 4}`,
      );
    }
    const { device } = this.#gpu;
    const kernel: OpenKernel = { name, spec, offsetIn, layout: this.#layout(spec, offsetIn), pipeline: undefined };
    const code = this.#enables(name, spec) + declarations(spec) + spec.source;
    const descriptor = () => ({
      label: name,
      layout: device.createPipelineLayout({ bindGroupLayouts: [kernel.layout] }),
      compute: { module: device.createShaderModule({ label: name, code }), entryPoint: "main" },
    });
    if (this.#compiling === undefined) kernel.pipeline = device.createComputePipeline(descriptor());
    else this.#compiling.run(() => this.#compileAside(kernel, descriptor()));
    return kernel;
  }

  async #compileAside(kernel: OpenKernel, descriptor: GPUComputePipelineDescriptor): Promise<void> {
    try {
      kernel.pipeline = await this.#gpu.device.createComputePipelineAsync(descriptor);
    } catch (cause) {
      this.#kernels[kernel.offsetIn].delete(kernel.name);
      const reason = messageOf(cause);
      throw new GpuError("shader_error", `Cannot compile ${kernel.name}: ${reason}`, { cause });
    }
  }

  /** What the provider wants in front of a shader. */
  #enables(name: string, { needs = [] }: KernelSpec): string {
    const { traits: { enables }, info: { provider, adapter } } = this.#gpu;
    return needs.map((need) => {
      const line = enables[need];
      if (line !== undefined) return `${line}\n`;
      throw new GpuError(
        "shader_error",
        `Cannot compile ${name}: it needs ${need}, which ${adapter} lacks (${provider})`,
      );
    }).join("");
  }

  #layout(spec: KernelSpec, offsetIn: OffsetPlace): GPUBindGroupLayout {
    const key = `${spec.bindings.map(({ access }) => (access === "read" ? "r" : "w")).join("")} ${offsetIn}`;
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
      buffer: { type: "uniform", hasDynamicOffset: offsetIn === "dispatch" },
    });
    const layout = this.#gpu.device.createBindGroupLayout({ label: key, entries });
    this.#layouts.set(key, layout);
    return layout;
  }
}

/** Bytes of the parameters before the list, which is aligned as its vectors are. */
export function listOffset({ params }: KernelSpec): number {
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
