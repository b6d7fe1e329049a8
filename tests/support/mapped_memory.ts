/** An exchange memory that only copies, as a GPU's mapped memory is copied out of and into: for timing what passes it on. */

import type { ReadRequest, ReadWait } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { PreparedRead } from "../../workers/exchange_memory.ts";
import { HostMemory } from "./host_memory.ts";

const LARGE_BYTES = 1 << 20;

/** Two tensors: what is sent, and what arrives. */
export class MappedMemory extends HostMemory {
  readonly out: Tensor;
  readonly in: Tensor;
  /** Milliseconds that each large copy took. */
  readonly copyMs: number[] = [];
  readonly #taken = new Map<string, Tensor>();

  /** @param bytes of each */
  constructor(bytes: number) {
    super();
    this.out = this.tensor("mapped for reading", [bytes / 4]);
    this.in = this.tensor("mapped for writing", [bytes / 4]);
    // Untouched memory is handed over page by page at its first use.
    for (const tensor of [this.out, this.in]) this.values(tensor).fill(1);
  }

  override read(requests: readonly ReadRequest[], { into }: ReadWait<ArrayBufferLike> = {}): Promise<Uint8Array[]> {
    return Promise.resolve(this.#copied(requests, into));
  }

  #copied(requests: readonly ReadRequest[], into?: Uint8Array): Uint8Array[] {
    let end = 0;
    return requests.map(({ tensor, byteOffset = 0, byteLength = 0 }) => {
      const { buffer, byteOffset: first } = this.values(tensor);
      const mapped = new Uint8Array(buffer, first + byteOffset, byteLength);
      if (into === undefined) return this.#timed(byteLength, () => mapped.slice());
      const view = into.subarray(end, end + byteLength);
      end += Math.ceil(byteLength / 16) * 16;
      this.#timed(byteLength, () => view.set(mapped));
      return view;
    });
  }

  override prepare(requests: readonly ReadRequest[]): PreparedRead {
    return (into) => Promise.resolve(this.#copied(requests, into));
  }

  override merge(): void {
    // The GPU does, at no cost to the host.
  }

  /** Memory that lasts, as a GPU's does. */
  override take(name: string, shape: readonly number[]): Tensor {
    const known = this.#taken.get(name) ?? this.tensor(name, shape);
    this.#taken.set(name, known);
    return known;
  }

  override copy(): void {
    // The GPU does.
  }

  override write(tensor: Tensor, data: Float32Array, byteOffset: number): void {
    this.#timed(data.byteLength, () => super.write(tensor, data, byteOffset));
  }

  #timed<T>(bytes: number, copy: () => T): T {
    const startedAt = performance.now();
    const result = copy();
    if (bytes >= LARGE_BYTES) this.copyMs.push(performance.now() - startedAt);
    return result;
  }
}
