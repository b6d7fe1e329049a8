/** An exchange memory that only copies, as a GPU's mapped memory is copied out of and into: for timing what passes it on. */

import type { ReadRequest, ReadWait } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { HostMemory } from "./host_memory.ts";

/** Two tensors: what is sent, and what arrives. */
export class MappedMemory extends HostMemory {
  readonly out: Tensor;
  readonly in: Tensor;
  /** Milliseconds that each copy took. */
  readonly copyMs: number[] = [];

  /** @param bytes of each */
  constructor(bytes: number) {
    super();
    this.out = this.tensor("mapped for reading", [bytes / 4]);
    this.in = this.tensor("mapped for writing", [bytes / 4]);
    // Untouched memory is handed over page by page at its first use.
    for (const tensor of [this.out, this.in]) this.values(tensor).fill(1);
  }

  override read(requests: readonly ReadRequest[], { into }: ReadWait = {}): Promise<Uint8Array<ArrayBuffer>[]> {
    const [{ tensor, byteLength = 0 } = { tensor: this.out }] = requests;
    if (into === undefined) return super.read(requests);
    return Promise.resolve([this.#timed(() => {
      const { buffer, byteOffset } = this.values(tensor);
      into.set(new Uint8Array(buffer, byteOffset, byteLength));
      return into;
    })]);
  }

  override write(tensor: Tensor, data: Float32Array<ArrayBuffer>, byteOffset: number): void {
    this.#timed(() => super.write(tensor, data, byteOffset));
  }

  #timed<T>(copy: () => T): T {
    const startedAt = performance.now();
    const result = copy();
    this.copyMs.push(performance.now() - startedAt);
    return result;
  }
}
