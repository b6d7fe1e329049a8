/**
 * Commands as WebGPU records them: dispatches into one pass as long as nothing else comes between, and copies. Each call into the
 * provider counts: through Dawn a dispatch costs the host three to four microseconds, nearly all of it in these calls.
 */

import type { GpuTraits } from "./provider.ts";
import type { BufferCopy, IssuedDispatch, PassObserver } from "./program.ts";

/** Records what is issued until it is complete. */
export class PassRecorder {
  readonly #device: GPUDevice;
  readonly #offsetsAsList: boolean;
  readonly #offset = new Uint32Array(1);
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  /** That of the open pass. */
  #pipeline: GPUComputePipeline | undefined;
  #observer: PassObserver | undefined;

  constructor(device: GPUDevice, { offsetsAsList }: Pick<GpuTraits, "offsetsAsList">) {
    this.#device = device;
    this.#offsetsAsList = offsetsAsList;
  }

  /** Has the passes and dispatches from here on observed; undefined ends it. */
  observe(observer: PassObserver | undefined): void {
    this.#observer = observer;
  }

  /** Records a dispatch. */
  issue({ kernel, group, offsets, dispatch }: IssuedDispatch): void {
    const pass = this.#openPass();
    const { pipeline } = kernel;
    if (pipeline === undefined) throw new Error(`Cannot dispatch ${kernel.name}: it is not compiled yet`);
    if (pipeline !== this.#pipeline) {
      this.#pipeline = pipeline;
      pass.setPipeline(pipeline);
    }
    if (offsets === undefined) pass.setBindGroup(0, group);
    else if (this.#offsetsAsList) pass.setBindGroup(0, group, offsets);
    else {
      this.#offset[0] = offsets[0];
      pass.setBindGroup(0, group, this.#offset, 0, 1);
    }
    const [x, y, z] = dispatch.groups;
    // Each number is converted by itself, and 1 is what is taken for one that is not given.
    if (z !== 1) pass.dispatchWorkgroups(x, y, z);
    else if (y !== 1) pass.dispatchWorkgroups(x, y);
    else pass.dispatchWorkgroups(x);
    if (this.#observer === undefined) return;
    this.#observer.record(kernel, dispatch);
    if (this.#observer.unit === "dispatch") this.closePass();
  }

  /** Records a copy, after the dispatches before it. */
  copy({ from, fromByte, to, toByte, byteLength }: BufferCopy): void {
    this.closePass();
    this.encoder().copyBufferToBuffer(from, fromByte, to, toByte, byteLength);
  }

  /** What takes further commands, between passes. */
  encoder(): GPUCommandEncoder {
    return this.#encoder ??= this.#device.createCommandEncoder();
  }

  /** Ends the open pass: what is issued next begins another. */
  closePass(): void {
    this.#pass?.end();
    this.#pass = undefined;
    this.#pipeline = undefined;
  }

  /** @returns all that was recorded since the last call; undefined: nothing */
  complete(): GPUCommandBuffer | undefined {
    this.closePass();
    const commands = this.#encoder?.finish();
    this.#encoder = undefined;
    return commands;
  }

  #openPass(): GPUComputePassEncoder {
    this.#pass ??= this.encoder().beginComputePass(this.#observer?.beginPass());
    return this.#pass;
  }
}
