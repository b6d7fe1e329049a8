/**
 * What the host says about the rows of a step, in one buffer and one write: row tables, rotations, tokens, settings of
 * draws. Steps of the same shape have the same layout, so that the windows on it stay bound from step to step.
 */

import type { Commands } from "../../kernels/pipeline.ts";
import type { Scratch } from "../../kernels/scratch.ts";
import { bytesOf, type DType, type Tensor } from "../../kernels/tensor.ts";

/** Words of the smallest distance of two bindings that every adapter allows. */
const ALIGNMENT = 64;

/** A part of the state, as long as the step lasts. */
export interface StatePart {
  readonly label: string;
  readonly dtype: Extract<DType, "u32" | "f32">;
  readonly shape: readonly number[];
  /** In words. */
  readonly at: number;
  readonly words: number;
}

/** What a part holds, and how long it is at most. */
export interface StateContents {
  readonly data: Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>;
  /** @default the data as one row */
  readonly shape?: readonly number[];
  /** Words that are bound; the same for data of several lengths keeps their layouts alike. @default as long as the data */
  readonly room?: number;
}

/** The state of one step: parts are added, then all are uploaded, then they are tensors. */
export class StepState {
  readonly #contents: { readonly at: number; readonly data: Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer> }[] =
    [];
  #words = 0;
  #whole: Tensor | undefined;

  /** Where the next part will lie, in words; programs that bind parts depend on it. */
  get words(): number {
    return this.#words;
  }

  /** Takes the data over: it must not change before the upload. */
  add(label: string, { data, shape = [data.length], room = data.length }: StateContents): StatePart {
    const at = this.#words;
    const words = Math.ceil(Math.max(room, data.length, 4) / 4) * 4;
    this.#contents.push({ at, data });
    this.#words = Math.ceil((at + words) / ALIGNMENT) * ALIGNMENT;
    return { label, dtype: data instanceof Uint32Array ? "u32" : "f32", shape, at, words };
  }

  /** Writes all parts; takes effect after what was recorded before, and after what is held back, without releasing that. */
  upload(commands: Commands, scratch: Scratch): void {
    if (this.#words === 0) return;
    const state = new Uint32Array(this.#words);
    for (const { at, data } of this.#contents) {
      if (data instanceof Uint32Array) state.set(data, at);
      else new Float32Array(state.buffer).set(data, at);
    }
    // In powers of two: each growth voids every program.
    const shape = [2 ** Math.ceil(Math.log2(this.#words))];
    this.#whole = scratch.take("step state", "u32", shape);
    const ahead = commands.isHolding ? scratch.take("step state ahead", "u32", shape) : undefined;
    if (ahead === undefined || !commands.isHolding) return commands.write(this.#whole, state);
    // What is held back still reads the state of the step before. The copy of that step's own state has been submitted.
    commands.gpu.write(ahead, state);
    commands.copy(ahead, this.#whole, { byteLength: state.byteLength });
  }

  /** A part on the GPU; only after the upload. */
  tensor({ label, dtype, shape, at, words }: StatePart): Tensor {
    if (this.#whole === undefined) throw new RangeError(`Cannot bind ${label}: the step's state is not uploaded`);
    return { ...this.#whole, byteOffset: at * 4, byteLength: words * bytesOf(dtype), dtype, shape, label };
  }
}

/** Rows that a part has room for: a power of two, so that steps of a few rows more have the same layout. */
export function roomFor(rows: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(1, rows)));
}
