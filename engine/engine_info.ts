/** What a loaded engine reports about itself; plain data that crosses the wire as it is. */

import type { ProviderName } from "../kernels/provider.ts";
import type { LayerRole } from "./layer_plan.ts";

/** A step with rows of one kind, as a warm engine ran it. */
export interface MeasuredStep {
  readonly kind: "prefill" | "dense" | "sparse" | "correction";
  readonly rows: number;
  /** Of decode rows: KV rows read per layer; of the others: positions seen, summed over the rows. */
  readonly context: number;
  readonly ms: number;
}

/** What is known once the weights are loaded and the KV slice is allocated. */
export interface EngineInfo {
  /** SHA-256 (hex) over configuration and weights: all workers of a group must agree on it. */
  readonly digest: string;
  /** The longest context the model was made for, in tokens. */
  readonly maxPositions: number;
  readonly vocabSize: number;
  readonly parameters: number;
  /** Transformer layers, calibrated or not. */
  readonly layers: number;
  /** Role of each layer for sparse rows; undefined when the model has no calibration. */
  readonly roles: readonly LayerRole[] | undefined;
  readonly selectLayers: readonly number[];
  /** Default budget and the context from which `auto` is sparse; undefined when the model has no calibration. */
  readonly sparse: { readonly budget: number; readonly sparseFrom: number } | undefined;
  /** The GPU's own name, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  readonly adapter: string;
  /** Whether the adapter computes on the CPU. */
  readonly software: boolean;
  /** The implementation of WebGPU that it is reached through. */
  readonly provider: ProviderName;
  /** The product that its matrix units compute, e.g. `16×16×16 f16→f32`; undefined where kernels cannot use any. */
  readonly matrix: string | undefined;
  /** The longest context at which sparse rows are corrected without being asked for; 0: at none. */
  readonly cheapCorrections: number;
  /** What its steps took once it was warmed up; empty before. */
  readonly measured: readonly MeasuredStep[];
  /** Pages of the KV slice. */
  readonly kvPages: number;
  /** Pages beside it for rows that other workers own; 0 without others. */
  readonly replicaPages: number;
}
