/**
 * One worker's slice of the KV cache on the GPU: a pool of physical pages for all layers, and slots that each hold one
 * sequence's table of pages. Knows memory; `sequences.ts` knows which sequence has which slot, and the router which
 * pages are free.
 */

import type { Gpu } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { EngineError } from "../errors.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { PAGE_TOKENS, pagesFor } from "../span.ts";
import type { SlicePages } from "./copy_plan.ts";
import { MAX_REPLICA_SLOTS } from "./replica_store.ts";

/** Keys and values of one layer: f16 [pages, kvHeads, 64, headDim] each; keys are stored rotated. */
export interface KvLayer {
  readonly k: Tensor;
  readonly v: Tensor;
}

/** Sequences that can be open at once. */
export const SLOTS = 256;

/** Replicas of one sequence never take more. */
const MAX_REPLICA_PAGES = Math.ceil(2 * MAX_REPLICA_SLOTS / PAGE_TOKENS);

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
  /** Pages of sequences, numbered from 0. */
  readonly pages: number;
  /** Pages that follow them, for rows that other workers of a group own. */
  readonly replicaPages: number;
  /** Physical page of each page of each slot, u32 [slots, tableWidth]: those of the context first, then those of replicas. */
  readonly pageTable: Tensor;
  /** Pages of the longest context. */
  readonly maxPages: number;
  readonly tableWidth: number;
  readonly #gpu: Gpu;

  private constructor(gpu: Gpu, config: ModelConfig, { pages, replicaPages }: SlicePages) {
    this.#gpu = gpu;
    this.pages = pages;
    this.replicaPages = replicaPages;
    this.maxPages = pagesFor(config.maxPositions);
    this.tableWidth = this.maxPages + Math.min(replicaPages, MAX_REPLICA_PAGES);
    const shape = [pages + replicaPages, config.kvHeads, PAGE_TOKENS, config.headDim];
    this.layers = Array.from({ length: config.layers }, (_, layer) => ({
      k: gpu.tensor(`layer ${layer} keys`, "f16", shape),
      v: gpu.tensor(`layer ${layer} values`, "f16", shape),
    }));
    this.pageTable = gpu.tensor("page table", "u32", [SLOTS, this.tableWidth]);
  }

  /**
   * Allocates exactly so many pages.
   * @throws {EngineError} `kv_exhausted` when one binding cannot hold so many
   * @throws {GpuError} `out_of_gpu_memory`
   */
  static async allocate(gpu: Gpu, config: ModelConfig, size: SlicePages): Promise<KvSlice> {
    const { pages, replicaPages } = size;
    const bound = bindablePages(gpu, config) - replicaPages;
    if (!(pages >= 1 && pages <= bound)) {
      throw new EngineError(
        "kv_exhausted",
        `Cannot allocate the KV slice: ${pages} pages are not within 1 and ${bound}`,
      );
    }
    const slice = new KvSlice(gpu, config, size);
    try {
      await gpu.check();
    } catch (error) {
      slice.close();
      throw error;
    }
    return slice;
  }

  /**
   * Writes pages into a slot's table, from its entry `first` on; takes effect before the next submit.
   * @param pages counted from 0 on this worker
   */
  writeTable(slot: number, first: number, pages: Uint32Array): void {
    if (pages.length === 0) return;
    this.#gpu.write(this.pageTable, new Uint32Array(pages), (slot * this.tableWidth + first) * 4);
  }

  /** Frees the GPU memory. */
  close(): void {
    for (const { k, v } of this.layers) {
      this.#gpu.free(k);
      this.#gpu.free(v);
    }
    this.#gpu.free(this.pageTable);
  }
}
