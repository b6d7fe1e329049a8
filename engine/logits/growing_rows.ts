/** Rows on the GPU that are taken and given back one by one; memory doubles as they run out, up to a bound. Knows no contents. */

import type { Commands } from "../../kernels/pipeline.ts";
import { bytesOf, type DType, type Tensor } from "../../kernels/tensor.ts";

/** What the rows are, and how many there may be. */
export interface GrowingRowsOptions {
  readonly label: string;
  readonly dtype: DType;
  /** Numbers of a row. */
  readonly width: number;
  /** Rows that there is room for at first. */
  readonly first: number;
  /** Most bytes in all; one binding holds no more either. */
  readonly maxBytes: number;
  /** @default as many as the bytes hold */
  readonly most?: number;
}

/** One tensor of rows. What they hold stays when it grows. */
export class GrowingRows {
  readonly rowBytes: number;
  readonly #commands: Commands;
  readonly #options: GrowingRowsOptions;
  #tensor: Tensor | undefined;
  #capacity = 0;
  #free: number[] = [];

  constructor(commands: Commands, options: GrowingRowsOptions) {
    this.#commands = commands;
    this.#options = options;
    this.rowBytes = options.width * bytesOf(options.dtype);
  }

  /** [capacity, width]; undefined before the first row is taken. */
  get tensor(): Tensor | undefined {
    return this.#tensor;
  }

  /** Rows that there is memory for. */
  get capacity(): number {
    return this.#capacity;
  }

  /** A free row; undefined when there is none and no more memory is to be taken. */
  take(): number | undefined {
    if (this.#free.length === 0) this.#grow();
    return this.#free.pop();
  }

  /** Gives a row back. */
  give(row: number): void {
    this.#free.push(row);
  }

  /** Gives all rows back and frees the memory; it can be used again. */
  close(): void {
    this.#commands.submit();
    if (this.#tensor !== undefined) this.#commands.gpu.free(this.#tensor);
    this.#tensor = undefined;
    this.#capacity = 0;
    this.#free = [];
  }

  #grow(): void {
    const { gpu } = this.#commands;
    const { label, dtype, width, first, maxBytes, most = Infinity } = this.#options;
    const fitting = Math.floor(Math.min(maxBytes, gpu.info.maxBindingBytes) / this.rowBytes);
    const capacity = Math.min(most, fitting, Math.max(first, 2 * this.#capacity));
    if (capacity <= this.#capacity) return;
    const grown = gpu.tensor(label, dtype, [capacity, width]);
    if (this.#tensor !== undefined) {
      this.#commands.copy(this.#tensor, grown, { byteLength: this.#capacity * this.rowBytes });
      // The copy must be under way before its source is destroyed.
      this.#commands.submit();
      gpu.free(this.#tensor);
    }
    for (let row = capacity - 1; row >= this.#capacity; row--) this.#free.push(row);
    this.#tensor = grown;
    this.#capacity = capacity;
  }
}
