/**
 * The memory of a group's workers as far as a router can get it wrong: how many pages each has, how they are numbered,
 * and which worker may hold which page of a sequence. Knows page numbers; knows nothing of what pages hold.
 */

import { PageMap } from "../../engine/page_map.ts";
import type { ModelInfo } from "../../router/group/group.ts";

const MODEL: Omit<ModelInfo, "kvPages" | "slices" | "adapters"> = {
  id: "fake",
  digest: "f".repeat(64),
  maxPositions: 100_000,
  vocabSize: 1000,
  parameters: 0,
  layers: 4,
  roles: ["dense", "dense", "select", "sparse"],
  selectLayers: [2],
  sparse: { budget: 16, sparseFrom: 64 },
  adapter: "none",
  software: true,
  provider: "deno",
  matrix: undefined,
  cheapCorrections: 50_000,
  measured: [],
  replicaPages: 0,
};

/** The info of a small model on workers with the given slices, else on one with the given (or 64) pages. */
export function fakeModel(info: Partial<ModelInfo> = {}): ModelInfo {
  const slices = info.slices ?? [info.kvPages ?? 64];
  const kvPages = slices.reduce((sum, pages) => sum + pages, 0);
  return { ...MODEL, ...info, slices, kvPages, adapters: slices.map((_, worker) => `none ${worker}`) };
}

/** The slices of one epoch. */
export class FakeSlices {
  readonly #slices: readonly number[];
  readonly #map: PageMap;

  constructor({ slices }: ModelInfo) {
    this.#slices = slices;
    this.#map = new PageMap(slices);
  }

  /** What is wrong with a page as the i-th of a sequence, in words. */
  faultOfPage(page: number, { offset, i }: { readonly offset: number; readonly i: number }): string | undefined {
    if (!Number.isInteger(offset) || offset < 0 || offset >= this.#map.period) {
      return `its offset ${offset} is outside the page map of ${this.#map.period}`;
    }
    const worker = this.#workerOf(page);
    if (worker === undefined) return `page ${page} is outside the pool`;
    const owner = this.#map.owner(offset, i);
    return owner === worker
      ? undefined
      : `page ${page} lies on worker ${worker} although worker ${owner} owns page ${i}`;
  }

  #workerOf(page: number): number | undefined {
    let base = 0;
    for (const [worker, pages] of this.#slices.entries()) {
      if (page >= base && page < base + pages) return worker;
      base += pages;
    }
    return undefined;
  }
}
