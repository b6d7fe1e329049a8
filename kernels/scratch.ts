/**
 * Working tensors that live as long as their owner and grow when a step needs more. Knows names and sizes;
 * the contents last only until the next use of the same name.
 */

import type { Commands } from "./pipeline.ts";
import { type DType, paddedBytes, type Tensor } from "./tensor.ts";

/** Named working memory. Tensors always bind the whole buffer, so that bind groups stay the same from step to step. */
export class Scratch {
  readonly #commands: Commands;
  readonly #tensors = new Map<string, Tensor>();

  constructor(commands: Commands) {
    this.#commands = commands;
  }

  /**
   * The tensor of that name, at least as large as `shape`; grown ones are not kept zeroed and lose their contents.
   * @throws {GpuError} `out_of_gpu_memory` when it cannot be that large
   */
  take(name: string, dtype: DType, shape: readonly number[]): Tensor {
    const present = this.#tensors.get(name);
    if (present !== undefined && present.byteLength >= paddedBytes(dtype, shape)) {
      return present.dtype === dtype ? { ...present, shape } : { ...present, dtype, shape };
    }
    if (present !== undefined) this.#commands.retire(present);
    const made = this.#commands.gpu.tensor(name, dtype, shape);
    this.#tensors.set(name, made);
    return made;
  }

  /** Frees everything. */
  close(): void {
    for (const tensor of this.#tensors.values()) this.#commands.gpu.free(tensor);
    this.#tensors.clear();
  }
}
