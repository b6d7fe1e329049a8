/** The model that a fake group serves: small, calibrated, on as many workers as a test wants. */

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
  copyPages: 0,
};

/** The info of a small model on workers with the given slices, else on one with the given (or 64) pages. */
export function fakeModel(info: Partial<ModelInfo> = {}): ModelInfo {
  const slices = info.slices ?? [info.kvPages ?? 64];
  const kvPages = slices.reduce((sum, pages) => sum + pages, 0);
  return { ...MODEL, ...info, slices, kvPages, adapters: slices.map((_, worker) => `none ${worker}`) };
}
