/**
 * GPU timestamps of what `Commands` records, for benchmarks: of every dispatch in a pass of its own, or of the passes as
 * they are. Knows query sets and passes; what a dispatch computes is known to those who read the times.
 */

import { GpuError } from "./errors.ts";
import type { Gpu } from "./gpu.ts";
import type { Dispatch, Kernel, PassObserver } from "./pipeline.ts";
import type { Tensor } from "./tensor.ts";

/** A pass that ran. */
export interface TimedPass {
  /** On the GPU's clock; comparable with other passes of the same device only. */
  readonly startNs: number;
  readonly endNs: number;
  /** What it consisted of, in order: one dispatch when dispatches are timed. */
  readonly dispatches: readonly TimedDispatch[];
}

/** A dispatch as it was recorded. */
export interface TimedDispatch {
  /** The kernel's name: the operation, then what distinguishes the variant. */
  readonly kernel: string;
  readonly dispatch: Dispatch;
}

/** Queries that one set may hold by the standard; two for each pass. */
const SET_QUERIES = 4096;
/** Passes between two reads, at most: eight sets, 256 KiB. */
const MAX_PASSES = 16_384;

/**
 * Times passes between two calls of `read`; attach it with `Commands.observe`. By dispatch, a step takes longer than in
 * passes of many: the sum is the time of kernels, not of a step.
 */
export class PassTimer implements PassObserver {
  readonly unit: PassObserver["unit"];
  readonly #gpu: Gpu;
  readonly #sets: { readonly queries: GPUQuerySet; readonly ticks: Tensor }[] = [];
  #passes: TimedDispatch[][] = [];

  /** @throws {GpuError} `invalid_shape` when the adapter has no timestamps */
  constructor(gpu: Gpu, unit: PassObserver["unit"]) {
    if (!gpu.info.timestamps) {
      throw new GpuError("invalid_shape", `Cannot time kernels: ${gpu.info.adapter} has no timestamp queries`);
    }
    this.#gpu = gpu;
    this.unit = unit;
  }

  /**
   * Called by `Commands` when it opens a pass.
   * @throws {GpuError} `invalid_shape` when too many passes were timed since the last read
   */
  beginPass(): GPUComputePassDescriptor {
    const query = 2 * this.#passes.length;
    if (this.#passes.length === MAX_PASSES) {
      throw new GpuError("invalid_shape", `Cannot time a pass: ${MAX_PASSES} passes wait to be read`);
    }
    this.#passes.push([]);
    const at = query % SET_QUERIES;
    return {
      timestampWrites: {
        querySet: this.#setAt(Math.floor(query / SET_QUERIES)).queries,
        beginningOfPassWriteIndex: at,
        endOfPassWriteIndex: at + 1,
      },
    };
  }

  /** Called by `Commands` for every dispatch, after its pass was opened. */
  record(kernel: Kernel, dispatch: Dispatch): void {
    this.#passes.at(-1)?.push({ kernel: kernel.name, dispatch });
  }

  /** Waits for what was submitted and returns its passes in order; the next ones are counted from zero. */
  async read(): Promise<TimedPass[]> {
    const passes = this.#passes;
    this.#passes = [];
    const used = 2 * passes.length;
    const { device } = this.#gpu;
    const encoder = device.createCommandEncoder({ label: "timestamps" });
    const sets = this.#sets.slice(0, Math.ceil(used / SET_QUERIES));
    for (const [i, { queries, ticks }] of sets.entries()) {
      encoder.resolveQuerySet(queries, 0, Math.min(SET_QUERIES, used - i * SET_QUERIES), ticks.buffer, 0);
    }
    device.queue.submit([encoder.finish()]);
    const read = await this.#gpu.read(sets.map(({ ticks }) => ({ tensor: ticks })));
    const ticks = read.map((bytes) => new BigUint64Array(bytes.buffer, bytes.byteOffset, SET_QUERIES));
    const at = (query: number) => Number(ticks[Math.floor(query / SET_QUERIES)]?.[query % SET_QUERIES]);
    return passes.map((dispatches, i) => ({ startNs: at(2 * i), endNs: at(2 * i + 1), dispatches }));
  }

  /** Frees its queries. Detach it first. */
  close(): void {
    for (const { queries, ticks } of this.#sets.splice(0)) {
      queries.destroy();
      this.#gpu.free(ticks);
    }
  }

  #setAt(index: number): { readonly queries: GPUQuerySet } {
    const known = this.#sets[index];
    if (known !== undefined) return known;
    const byteLength = SET_QUERIES * 8;
    const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
    const buffer = this.#gpu.buffer("timestamps", byteLength, usage);
    const ticks: Tensor = {
      buffer,
      byteOffset: 0,
      byteLength,
      dtype: "u32",
      shape: [SET_QUERIES, 2],
      label: "timestamps",
    };
    const made = { queries: this.#gpu.device.createQuerySet({ type: "timestamp", count: SET_QUERIES }), ticks };
    this.#sets.push(made);
    return made;
  }
}
