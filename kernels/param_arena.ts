/**
 * Parameters of dispatches in one uniform buffer, a slot each. Transient slots hold until the next submit; kept ones are
 * written once and shared by equal contents: the layers of a program differ in tensors, hardly in parameters.
 */

import { GpuError } from "./errors.ts";
import type { Gpu } from "./gpu.ts";
import { type Kernel, listOffset, SLOT_BYTES } from "./kernel_cache.ts";

/** Values by name, and the words of the kernel's list. */
export interface DispatchParams {
  readonly params: Readonly<Record<string, number>>;
  readonly list: readonly number[];
}

const TRANSIENT_SLOTS = 2048;
const KEPT_SLOTS = 2048;
const LITTLE_ENDIAN = true;

/** The parameters of one device's dispatches; a slot is named by its byte offset in the buffer. */
export class ParamArena {
  readonly buffer: GPUBuffer;
  readonly #gpu: Gpu;
  readonly #transient = new DataView(new ArrayBuffer(TRANSIENT_SLOTS * SLOT_BYTES));
  readonly #block = new Uint32Array(SLOT_BYTES / 4);
  readonly #kept = new Map<string, number>();
  #used = 0;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    this.buffer = gpu.buffer("uniform arena", (TRANSIENT_SLOTS + KEPT_SLOTS) * SLOT_BYTES, usage);
  }

  /** Whether no transient slot is taken. */
  get isEmpty(): boolean {
    return this.#used === 0;
  }

  /** Whether no transient slot is left before the next `flush`. */
  get isFull(): boolean {
    return this.#used === TRANSIENT_SLOTS;
  }

  /**
   * A slot that holds until the next `flush`; must not be taken while the arena is full.
   * @throws {GpuError} `invalid_shape` when a parameter is missing or the list is too long
   */
  take(kernel: Kernel, given: DispatchParams): number {
    const offset = this.#used * SLOT_BYTES;
    writeBlock(this.#transient, offset, kernel, given);
    this.#used++;
    return offset;
  }

  /**
   * A slot that holds until `dropKept`; equal contents share one.
   * @returns undefined when none is left
   * @throws {GpuError} as `take`
   */
  keep(kernel: Kernel, given: DispatchParams): number | undefined {
    this.#block.fill(0);
    writeBlock(new DataView(this.#block.buffer), 0, kernel, given);
    const contents = this.#block.join();
    const known = this.#kept.get(contents);
    if (known !== undefined) return known;
    if (this.#kept.size === KEPT_SLOTS) return undefined;
    const offset = (TRANSIENT_SLOTS + this.#kept.size) * SLOT_BYTES;
    this.#gpu.device.queue.writeBuffer(this.buffer, offset, this.#block);
    this.#kept.set(contents, offset);
    return offset;
  }

  /** Frees the kept slots: nothing that refers to one may be submitted any more. */
  dropKept(): void {
    this.#kept.clear();
  }

  /** Writes the transient slots, for the commands that are submitted next, and frees them. */
  flush(): void {
    const { queue } = this.#gpu.device;
    if (this.#used > 0) queue.writeBuffer(this.buffer, 0, this.#transient.buffer, 0, this.#used * SLOT_BYTES);
    this.#used = 0;
  }
}

function writeBlock(to: DataView, at: number, { name, spec }: Kernel, { params, list }: DispatchParams): void {
  let offset = at;
  for (const [param, type] of spec.params) {
    const value = params[param];
    if (value === undefined || Number.isNaN(value)) {
      throw new GpuError("invalid_shape", `Cannot dispatch ${name}: parameter ${param} is ${value}`);
    }
    if (type === "f32") to.setFloat32(offset, value, LITTLE_ENDIAN);
    else if (type === "u32") to.setUint32(offset, value, LITTLE_ENDIAN);
    else to.setInt32(offset, value, LITTLE_ENDIAN);
    offset += 4;
  }
  const { listWords = 0 } = spec;
  if (list.length > listWords) {
    throw new GpuError("invalid_shape", `Cannot dispatch ${name}: a list of ${list.length} words exceeds ${listWords}`);
  }
  for (const [i, word] of list.entries()) to.setUint32(at + listOffset(spec) + i * 4, word, LITTLE_ENDIAN);
}
