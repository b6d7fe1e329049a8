/**
 * One worker's slice of the KV cache: a pool of physical pages for all layers, and for each open sequence the table of
 * its pages. Which page is free, shared or evicted is the router's business; here a page is just a place.
 */

import type { Gpu } from "../kernels/gpu.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { EngineError } from "./errors.ts";
import type { ModelConfig } from "./model_config.ts";
import { PAGE_TOKENS, pagesFor, type SequenceId } from "./span.ts";

/** Keys and values of one layer: f16 [pages, kvHeads, 64, headDim] each; keys are stored rotated. */
export interface KvLayer {
  readonly k: Tensor;
  readonly v: Tensor;
}

/** Sequences that can be open at once. */
const SLOTS = 256;

/** Bytes that one position takes over all layers, keys and values together. */
export function kvBytesPerToken(config: ModelConfig): number {
  return config.layers * 2 * config.kvHeads * config.headDim * 2;
}

/** The most pages that one binding per layer can hold. */
export function bindablePages(gpu: Gpu, config: ModelConfig): number {
  return Math.floor(gpu.info.maxBindingBytes / (config.kvHeads * PAGE_TOKENS * config.headDim * 2));
}

/** Pages and page tables on the GPU. */
export class KvSlice {
  readonly layers: readonly KvLayer[];
  readonly pages: number;
  /** Physical page of each page of each slot, u32 [slots, maxPages]. */
  readonly pageTable: Tensor;
  readonly maxPages: number;
  readonly #gpu: Gpu;
  readonly #slots = new Map<SequenceId, { readonly slot: number; pages: number }>();
  readonly #freeSlots: number[] = Array.from({ length: SLOTS }, (_, i) => SLOTS - 1 - i);

  private constructor(gpu: Gpu, config: ModelConfig, pages: number) {
    this.#gpu = gpu;
    this.pages = pages;
    this.maxPages = pagesFor(config.maxPositions);
    const shape = [pages, config.kvHeads, PAGE_TOKENS, config.headDim];
    this.layers = Array.from({ length: config.layers }, (_, layer) => ({
      k: gpu.tensor(`layer ${layer} keys`, "f16", shape),
      v: gpu.tensor(`layer ${layer} values`, "f16", shape),
    }));
    this.pageTable = gpu.tensor("page table", "u32", [SLOTS, this.maxPages]);
  }

  /**
   * Allocates exactly `pages`.
   * @throws {GpuError} `out_of_gpu_memory`
   */
  static async allocate(gpu: Gpu, config: ModelConfig, pages: number): Promise<KvSlice> {
    const bound = bindablePages(gpu, config);
    if (pages < 1 || pages > bound) {
      throw new EngineError(
        "kv_exhausted",
        `Cannot allocate the KV slice: ${pages} pages are not within 1 and ${bound}`,
      );
    }
    const slice = new KvSlice(gpu, config, pages);
    try {
      await gpu.check();
    } catch (error) {
      slice.close();
      throw error;
    }
    return slice;
  }

  /** Number of open sequences. */
  get openSequences(): number {
    return this.#slots.size;
  }

  /**
   * Gives a sequence a page table.
   * @throws {EngineError} `invalid_step` when it is open already, `kv_exhausted` when too many are
   */
  open(sequence: SequenceId, prefixPages: Uint32Array): void {
    if (this.#slots.has(sequence)) {
      throw new EngineError("invalid_step", `Cannot open sequence ${sequence}: it is open already`);
    }
    const slot = this.#freeSlots.pop();
    if (slot === undefined) {
      throw new EngineError("kv_exhausted", `Cannot open sequence ${sequence}: all ${SLOTS} slots are taken`);
    }
    this.#slots.set(sequence, { slot, pages: 0 });
    this.extend(sequence, prefixPages);
  }

  /**
   * Appends physical pages to a sequence's table; takes effect before the next submit.
   * @throws {EngineError} `invalid_step` when the sequence is unknown, a page does not exist or the table is full
   */
  extend(sequence: SequenceId, newPages: Uint32Array): void {
    const entry = this.#entry(sequence);
    if (newPages.length === 0) return;
    const wrong = newPages.find((page) => page >= this.pages);
    if (wrong !== undefined) {
      throw new EngineError(
        "invalid_step",
        `Cannot extend sequence ${sequence}: page ${wrong} is not below ${this.pages}`,
      );
    }
    if (entry.pages + newPages.length > this.maxPages) {
      const asked = entry.pages + newPages.length;
      throw new EngineError(
        "invalid_step",
        `Cannot extend sequence ${sequence}: ${asked} pages exceed ${this.maxPages}`,
      );
    }
    this.#gpu.write(this.pageTable, new Uint32Array(newPages), (entry.slot * this.maxPages + entry.pages) * 4);
    entry.pages += newPages.length;
  }

  /** Forgets a sequence. @throws {EngineError} `invalid_step` when it is unknown */
  release(sequence: SequenceId): void {
    const entry = this.#entry(sequence);
    this.#slots.delete(sequence);
    this.#freeSlots.push(entry.slot);
  }

  /** Row of the page table. */
  slotOf(sequence: SequenceId): number {
    return this.#entry(sequence).slot;
  }

  /** Positions that the sequence's pages can hold. */
  capacityOf(sequence: SequenceId): number {
    return this.#entry(sequence).pages * PAGE_TOKENS;
  }

  /** Frees the GPU memory. */
  close(): void {
    for (const { k, v } of this.layers) {
      this.#gpu.free(k);
      this.#gpu.free(v);
    }
    this.#gpu.free(this.pageTable);
  }

  #entry(sequence: SequenceId): { readonly slot: number; pages: number } {
    const entry = this.#slots.get(sequence);
    if (entry === undefined) {
      throw new EngineError("invalid_step", `Cannot use sequence ${sequence}: it is not open`);
    }
    return entry;
  }
}
