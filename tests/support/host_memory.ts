/** An exchange memory without a GPU: tensors of f32 on the host, merged by the plain loops of the reference. */

import type { ReadRequest, ReadWait } from "../../kernels/gpu.ts";
import { paddedBytes, sizeOf, type Tensor } from "../../kernels/tensor.ts";
import type { ExchangeMemory, PreparedRead, StatesToMerge } from "../../workers/exchange_memory.ts";
import { merge } from "../reference/merge_states.ts";

/** See the top of this file. */
export class HostMemory implements ExchangeMemory {
  readonly #data = new WeakMap<GPUBuffer, Float32Array<ArrayBuffer>>();
  /** What waits for data; undefined: nothing does. */
  #recorded: (() => void)[] | undefined;

  /** A tensor that holds the values. */
  tensor(label: string, shape: readonly number[], values?: ArrayLike<number>): Tensor {
    const buffer = {} as GPUBuffer;
    const byteLength = paddedBytes("f32", shape);
    const data = new Float32Array(byteLength / 4);
    data.set(values ?? []);
    this.#data.set(buffer, data);
    return { buffer, byteOffset: 0, byteLength, dtype: "f32", shape, label };
  }

  /** The values of a tensor; no copy. */
  values(tensor: Tensor): Float32Array<ArrayBuffer> {
    const data = this.#data.get(tensor.buffer);
    if (data === undefined) throw new Error(`Cannot use ${tensor.label}: it is of another memory`);
    const first = tensor.byteOffset / 4;
    return data.subarray(first, first + sizeOf(tensor.shape));
  }

  async read(requests: readonly ReadRequest[], { into }: ReadWait<ArrayBufferLike> = {}): Promise<Uint8Array[]> {
    return await this.prepare(requests)(into);
  }

  prepare(requests: readonly ReadRequest[]): PreparedRead {
    const copies = requests.map(({ tensor, byteOffset = 0, byteLength = tensor.byteLength - byteOffset }) =>
      new Uint8Array(this.values(tensor).slice(byteOffset / 4, (byteOffset + byteLength) / 4).buffer)
    );
    return (into) => Promise.resolve(into === undefined ? copies : copiedInto(into, copies));
  }

  write(tensor: Tensor, data: Float32Array, byteOffset: number): void {
    this.values(tensor).set(data, byteOffset / 4);
  }

  expect(): void {
    this.#recorded = [];
  }

  deliver(tensor: Tensor, data: Float32Array, byteOffset: number): void {
    this.write(tensor, data, byteOffset);
  }

  delivered(): void {
    for (const run of this.#recorded ?? []) run();
    this.#recorded = undefined;
  }

  copy(from: Tensor, to: Tensor, range: { from: number; to: number; byteLength: number }): void {
    this.write(to, this.values(from).slice(range.from / 4, (range.from + range.byteLength) / 4), range.to);
  }

  merge(states: StatesToMerge): void {
    if (this.#recorded === undefined) this.#merge(states);
    else this.#recorded.push(() => this.#merge(states));
  }

  #merge({ shape: { heads, headDim }, rows, count, parts, out }: StatesToMerge): void {
    const [o, lse] = [this.values(parts.o), this.values(parts.lse)];
    for (let at = 0; at < rows * heads; at++) {
      const states = Array.from({ length: count }, (_, part) => {
        const state = part * rows * heads + at;
        const mean = Float64Array.from(o.subarray(state * headDim, (state + 1) * headDim));
        return { o: mean, lse: lse[state] ?? NaN };
      });
      const merged = merge(states, headDim);
      this.values(out.o).set(merged.o, at * headDim);
      this.values(out.lse).set([merged.lse], at);
    }
  }

  take(name: string, shape: readonly number[]): Tensor {
    return this.tensor(name, shape);
  }

  free(): void {
    // The garbage collector does.
  }
}

/** Views of the memory that hold what is copied, each from a multiple of 16 on. */
function copiedInto(into: Uint8Array, copies: readonly Uint8Array[]): Uint8Array[] {
  let end = 0;
  return copies.map((copy) => {
    const view = into.subarray(end, end + copy.length);
    view.set(copy);
    end += Math.ceil(copy.length / 16) * 16;
    return view;
  });
}
