/**
 * Dispatches that were recorded once and are replayed with the tensors and parameters of their recording: what differs
 * from one replay to the next lies in the contents of its tensors. Knows pipelines, bind groups and copies; knows
 * nothing of what they compute, nor of what makes two programs alike.
 */

import { GpuError } from "./errors.ts";
import type { Kernel } from "./kernel_cache.ts";
import type { Tensor } from "./tensor.ts";

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

/** A copy between buffers. */
export interface BufferCopy {
  readonly from: GPUBuffer;
  readonly fromByte: number;
  readonly to: GPUBuffer;
  readonly toByte: number;
  readonly byteLength: number;
}

/** A dispatch as it is recorded, once or at each replay. */
export interface IssuedDispatch {
  readonly kernel: Kernel;
  readonly group: GPUBindGroup;
  /** Of its parameters in the arena: the one dynamic offset, as the list that WebGPU takes; undefined: its group holds it. */
  readonly offsets: [number] | undefined;
  readonly dispatch: Dispatch;
}

/** Consecutive dispatches, and the copies after them. */
export interface ProgramRun {
  readonly steps: readonly IssuedDispatch[];
  readonly copies: readonly BufferCopy[];
}

/** A recording, complete. */
export interface Program {
  /** In order; between two of them a replay may submit, or wait. */
  readonly sections: readonly (readonly ProgramRun[])[];
  readonly dispatches: number;
  /** What it refers to: it is void once one of these is freed. */
  readonly buffers: ReadonlySet<GPUBuffer>;
}

/** A program in the making. */
export class Recording {
  readonly #sections: ProgramRun[][] = [[]];
  #run: { readonly steps: IssuedDispatch[]; readonly copies: BufferCopy[] } | undefined;
  readonly #buffers = new Set<GPUBuffer>();
  #dispatches = 0;
  #isVoid = false;

  /** Whether something that it refers to is gone, so that it must be made again. */
  get isVoid(): boolean {
    return this.#isVoid;
  }

  dispatch(step: IssuedDispatch): void {
    for (const { buffer } of step.dispatch.tensors) this.#buffers.add(buffer);
    if (this.#run === undefined || this.#run.copies.length > 0) this.#beginRun();
    this.#run?.steps.push(step);
    this.#dispatches++;
  }

  copy(copy: BufferCopy): void {
    this.#buffers.add(copy.from).add(copy.to);
    if (this.#run === undefined) this.#beginRun();
    this.#run?.copies.push(copy);
  }

  endSection(): void {
    if (this.#sections.at(-1)?.length === 0) return;
    this.#sections.push([]);
    this.#run = undefined;
  }

  /** A buffer is about to be destroyed. */
  forget(buffer: GPUBuffer): void {
    if (this.#buffers.has(buffer)) this.#isVoid = true;
  }

  /** Parameters that it refers to are gone. */
  invalidate(): void {
    this.#isVoid = true;
  }

  finish(): Program {
    const sections = this.#sections.filter((runs) => runs.length > 0);
    return { sections, dispatches: this.#dispatches, buffers: this.#buffers };
  }

  #beginRun(): void {
    this.#run = { steps: [], copies: [] };
    this.#sections.at(-1)?.push(this.#run);
  }
}

/** Several hundred dispatches each, which share equal bind groups and parameters: a few megabytes in all. */
const MAX_PROGRAMS = 128;

/** Working memory that grows while a program is recorded voids what was recorded before; the next time it is large enough. */
const MAX_RECORDINGS = 4;

/** Programs by what their makers call them; the least recently used one goes when there are too many. */
export class Programs {
  readonly #byKey = new Map<string, Program>();

  get size(): number {
    return this.#byKey.size;
  }

  /**
   * The program of that name; made by `record` when it is not there, and again when its buffers change while it is made.
   * @throws {GpuError} `invalid_shape` when they change every time
   */
  async get(key: string, record: (recording: Recording) => Promise<void> | void): Promise<Program> {
    const known = this.#find(key);
    if (known !== undefined) return known;
    for (let attempt = 0; attempt < MAX_RECORDINGS; attempt++) {
      const recording = new Recording();
      await record(recording);
      if (recording.isVoid) continue;
      const program = recording.finish();
      this.#add(key, program);
      return program;
    }
    throw new GpuError("invalid_shape", `Cannot record ${key}: its buffers changed ${MAX_RECORDINGS} times`);
  }

  #find(key: string): Program | undefined {
    const known = this.#byKey.get(key);
    if (known === undefined) return undefined;
    this.#byKey.delete(key);
    this.#byKey.set(key, known);
    return known;
  }

  #add(key: string, program: Program): void {
    this.#byKey.set(key, program);
    const [oldest] = this.#byKey.keys();
    if (this.#byKey.size > MAX_PROGRAMS && oldest !== undefined) this.#byKey.delete(oldest);
  }

  /** A buffer is about to be destroyed: what refers to it goes. */
  forget(buffer: GPUBuffer): void {
    for (const [key, { buffers }] of this.#byKey) if (buffers.has(buffer)) this.#byKey.delete(key);
  }

  clear(): void {
    this.#byKey.clear();
  }
}
