/**
 * From kernels to the queue: parameters in one uniform arena, commands recorded into one pass until they are submitted,
 * or into a program that is replayed. Knows kernels and buffers; knows nothing of what they compute.
 */

import { GpuError } from "./errors.ts";
import type { Gpu, ReadRequest, ReadWait, StagedRead } from "./gpu.ts";
import { type Kernel, KernelCache, type KernelSpec } from "./kernel_cache.ts";
import { ParamArena } from "./param_arena.ts";
import { PassRecorder } from "./pass_recorder.ts";
import type { Dispatch, IssuedDispatch, PassObserver, Program, Recording } from "./program.ts";
import { Programs } from "./program.ts";
import type { GpuTraits } from "./provider.ts";
import { TileChoices } from "./products/tile_choice.ts";
import { type HeldCommands, SubmitQueue } from "./submit_queue.ts";
import type { Tensor } from "./tensor.ts";

export type { BindingSpec, Kernel, KernelSpec, ParamField } from "./kernel_cache.ts";
export type { Dispatch, PassObserver, Program } from "./program.ts";

const MAX_GROUPS = 65535;

/** Records dispatches and submits them in order. One per device, used by one thread. */
export class Commands {
  readonly gpu: Gpu;
  /** As measured on this device; empty until `tuneTiles`. */
  readonly tiles = new TileChoices();
  readonly kernels: KernelCache;
  readonly #arena: ParamArena;
  readonly #programs = new Programs();
  readonly #passes: PassRecorder;
  readonly #fixesOffsets: boolean;
  #recording: Recording | undefined;
  /** Whether what was recorded waits for data. */
  #expects = false;
  /** To be freed after the next submit. */
  #retired: Tensor[] = [];
  readonly #queue: SubmitQueue;

  constructor(gpu: Gpu, { fixesOffsets }: Pick<GpuTraits, "fixesOffsets"> = gpu.traits) {
    this.gpu = gpu;
    this.#fixesOffsets = fixesOffsets;
    this.#queue = new SubmitQueue(gpu.device);
    this.#passes = new PassRecorder(gpu.device, gpu.traits);
    this.#arena = new ParamArena(gpu);
    this.kernels = new KernelCache(gpu, this.#arena.buffer);
    gpu.onFree((buffer) => {
      // What was held back may refer to it.
      this.release();
      this.#recording?.forget(buffer);
      this.#programs.forget(buffer);
    });
  }

  /** Whether commands are held back, which a write would release. */
  get isHolding(): boolean {
    return this.#queue.isHolding;
  }

  /** Programs that are kept. */
  get programs(): number {
    return this.#programs.size;
  }

  /**
   * The kernel of that name, compiled at its first use. Every variant of the source must have a name of its own.
   * @throws {GpuError} `shader_error` with the compiler's message
   */
  kernel(name: string, spec: () => KernelSpec): Kernel {
    const isFixed = this.#recording !== undefined && this.#fixesOffsets;
    return this.kernels.kernel(name, spec, isFixed ? "group" : "dispatch");
  }

  /** Records one dispatch. */
  dispatch(kernel: Kernel, dispatch: Dispatch): void {
    const { params, list = [], groups, groups: [x, y, z] } = dispatch;
    if (x === 0 || y === 0 || z === 0) return;
    if (x > MAX_GROUPS || y > MAX_GROUPS || z > MAX_GROUPS) {
      throw new GpuError("invalid_shape", `Cannot dispatch ${kernel.name}: groups [${groups}] exceed ${MAX_GROUPS}`);
    }
    if (this.kernels.isCompilingAhead) return;
    if (this.#recording !== undefined) {
      this.#recording.dispatch(this.#bound(kernel, dispatch, this.#keep(kernel, { params, list })));
      return;
    }
    if (kernel.offsetIn === "group") {
      throw new Error(`Cannot dispatch ${kernel.name}: its parameters stay where they are, and no program is recorded`);
    }
    if (this.#arena.isFull) this.submit();
    this.#passes.issue(this.#bound(kernel, dispatch, this.#arena.take(kernel, { params, list })));
  }

  /**
   * The program of that name: recorded when it is not there, or no longer, by `record`, which dispatches and copies as usual
   * while nothing of it runs, and may end sections. The name must say everything that the dispatches depend on but the
   * contents of their tensors. `record` may be called several times; it must not write, submit or read.
   */
  async program(key: string, record: (endSection: () => void) => Promise<void> | void): Promise<Program> {
    return await this.#programs.get(key, async (recording) => {
      this.#recording = recording;
      try {
        await record(() => recording.endSection());
      } finally {
        this.#recording = undefined;
      }
    });
  }

  /** Records the dispatches and copies of a program again, or of one of its sections. */
  replay({ sections }: Program, section?: number): void {
    for (const runs of section === undefined ? sections : sections.slice(section, section + 1)) {
      for (const { steps, copies } of runs) {
        for (const step of steps) this.#passes.issue(step);
        for (const copy of copies) this.#passes.copy(copy);
      }
    }
  }

  /** Forgets all programs: something changed that their names do not reflect. Submits what was recorded of them. */
  dropPrograms(): void {
    this.submit();
    this.release();
    this.#programs.clear();
    this.#arena.dropKept();
  }

  /** Has what is recorded from here on observed; undefined ends it. What was recorded before is submitted. */
  observe(observer: PassObserver | undefined): void {
    this.submit();
    this.#passes.observe(observer);
  }

  /** Records a copy between tensors, after what was recorded before it. */
  copy(
    from: Tensor,
    to: Tensor,
    range: { readonly from?: number; readonly to?: number; readonly byteLength: number },
  ): void {
    if (range.byteLength === 0) return;
    const copy = {
      from: from.buffer,
      fromByte: from.byteOffset + (range.from ?? 0),
      to: to.buffer,
      toByte: to.byteOffset + (range.to ?? 0),
      byteLength: range.byteLength,
    };
    if (this.#recording === undefined) this.#passes.copy(copy);
    else this.#recording.copy(copy);
  }

  /**
   * Uploads data into a tensor, after what was recorded before and before what is recorded next. Submits: a queue runs
   * its writes ahead of commands that are still being recorded.
   */
  write(tensor: Tensor, data: ArrayBufferView, byteOffset = 0): void {
    if (this.#recording !== undefined) {
      throw new GpuError("invalid_shape", `Cannot write ${tensor.label}: a program is being recorded`);
    }
    this.submit();
    if (this.#queue.isHolding) this.release();
    this.gpu.write(tensor, data, byteOffset);
  }

  /**
   * Submits what was recorded, and with it the copies that a read-back needs; does not wait.
   * @returns what `Gpu.finishRead` takes
   */
  stage(requests: readonly ReadRequest[]): StagedRead {
    const staged = this.prepareRead(requests);
    this.submit();
    return staged;
  }

  /**
   * Records the copies that a read-back needs and completes what was recorded: the next submit only hands it over, and may wait for data.
   * @returns what `Gpu.finishRead` takes, after a submit
   */
  prepareRead(requests: readonly ReadRequest[]): StagedRead {
    this.#passes.closePass();
    const staged = this.gpu.stageRead(this.#passes.encoder(), requests);
    this.#complete();
    return staged;
  }

  /** Submits what was recorded and reads within a step; see `Gpu.takeRead`. */
  read<Memory extends ArrayBufferLike = ArrayBuffer>(
    requests: readonly ReadRequest[],
    wait?: ReadWait<Memory>,
  ): Promise<Uint8Array<ArrayBuffer | Memory>[]> {
    return this.gpu.takeRead(this.stage(requests), wait);
  }

  /**
   * What is recorded from here on reads data that is still to come: `deliver` brings it ahead of all that, so that recording
   * need not wait for it. Until `delivered` nothing may be submitted. Submits what was recorded before.
   */
  expect(): void {
    this.submit();
    this.#expects = true;
  }

  /** Uploads what was expected. */
  deliver(tensor: Tensor, data: ArrayBufferView, byteOffset = 0): void {
    this.gpu.write(tensor, data, byteOffset);
  }

  /** All that was expected is there, or will never be. */
  delivered(): void {
    this.#expects = false;
  }

  /** Frees a tensor once what was recorded, which may refer to it, is submitted. */
  retire(tensor: Tensor): void {
    this.#retired.push(tensor);
    if (!this.#expects) this.submit();
  }

  /** Submits what was recorded; does not wait. */
  submit(): void {
    this.#complete();
    if (!this.#queue.isEmpty) this.#send();
    for (const tensor of this.#retired.splice(0)) this.gpu.free(tensor);
  }

  #complete(): void {
    const commands = this.#passes.complete();
    if (commands !== undefined) this.#queue.add(commands);
  }

  #send(): void {
    if (this.#expects) throw new Error("Cannot submit: what was recorded waits for data");
    // A queue runs writes ahead of what is held back.
    if (!this.#arena.isEmpty) this.release();
    this.#arena.flush();
    this.#queue.submit();
  }

  /**
   * Holds back what is submitted from here on until `release`, so that a read-back that waits for everything submitted does
   * not wait for it. It is released sooner where something would overtake it: a write, or the end of a buffer.
   * @returns what `release` takes
   */
  hold(): HeldCommands {
    return this.#queue.hold();
  }

  /** Submits what was held back: all, and nothing is held back any more, or what one `hold` and those before it cover. */
  release(upTo?: HeldCommands): void {
    this.#queue.release(upTo);
  }

  #bound(kernel: Kernel, dispatch: Dispatch, slot: number): IssuedDispatch {
    const inGroup = kernel.offsetIn === "group";
    const group = this.kernels.bindGroup(kernel, dispatch.tensors, inGroup ? slot : 0);
    return { kernel, group, offsets: inGroup ? undefined : [slot], dispatch };
  }

  /** A slot of the arena for a dispatch of a program; when none is left, all programs go. */
  #keep(kernel: Kernel, given: { readonly params: Dispatch["params"]; readonly list: readonly number[] }): number {
    const slot = this.#arena.keep(kernel, given);
    if (slot !== undefined) return slot;
    this.dropPrograms();
    this.#recording?.invalidate();
    const emptied = this.#arena.keep(kernel, given);
    if (emptied === undefined) throw new Error("Cannot record a program: its parameters do not fit an empty arena");
    return emptied;
  }
}
