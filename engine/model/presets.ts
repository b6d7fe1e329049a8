/**
 * Named model shapes for random weights: benchmarks and tests that need no files. Knows numbers only.
 */

import { EngineError } from "../errors.ts";
import type { Calibration } from "../layer_plan.ts";
import type { ModelConfig } from "./model_config.ts";

/** A shape, and how its layers are planned for sparse rows. */
export interface Preset {
  readonly config: ModelConfig;
  readonly calibration: Calibration;
}

const LLAMA = {
  architecture: "llama",
  rmsNormEps: 1e-5,
  ropeScaling: { kind: "none" },
  tiedEmbeddings: false,
  attentionBias: false,
  qkNorm: undefined,
  blockNorms: "before",
  activation: "silu",
  fusedProjections: false,
  slidingWindow: undefined,
  localLayers: undefined,
  embeddingScale: 1,
  normOffset: 0,
  // Random weights would end their answers at random.
  eosTokens: [],
  bosToken: undefined,
} as const;

/** What those of seven and of eight billion parameters have in common. */
const LLAMA_7B_8B = {
  ...LLAMA,
  layers: 32,
  hidden: 4096,
  heads: 32,
  headDim: 128,
  attentionScale: 1 / Math.sqrt(128),
  maxPositions: 131072,
} as const;

/** Published for Llama-3-8B by the authors of TidalDecode. */
const CALIBRATION: Calibration = { selectLayers: [2, 13], budget: 512, sparseFrom: 4096 };

const LLAMA_3_8B: Preset = {
  config: { ...LLAMA_7B_8B, ffn: 14336, kvHeads: 8, vocabSize: 128256, ropeTheta: 500000 },
  calibration: CALIBRATION,
};

/** The shapes by name. */
export const PRESETS: Readonly<Record<string, Preset>> = {
  "llama-3-8b": LLAMA_3_8B,
  // As far as descendants of it were trained that read a million tokens.
  "llama-3-8b-1m": { ...LLAMA_3_8B, config: { ...LLAMA_3_8B.config, maxPositions: 2 ** 20 } },
  // Every query head has a KV head of its own: the KV cache takes four times the bytes of Llama-3-8B's.
  // The checkpoint's own bound is 4096; its long-context descendants, which benchmarks are about, reach further.
  "llama-2-7b": {
    config: { ...LLAMA_7B_8B, ffn: 11008, kvHeads: 32, vocabSize: 32000, ropeTheta: 10000 },
    calibration: CALIBRATION,
  },
  tiny: {
    config: {
      ...LLAMA,
      layers: 3,
      hidden: 128,
      ffn: 256,
      heads: 4,
      kvHeads: 2,
      headDim: 32,
      attentionScale: 1 / Math.sqrt(32),
      vocabSize: 512,
      maxPositions: 4096,
      ropeTheta: 10000,
    },
    // One layer of each role: the smallest model that decodes sparsely.
    calibration: { selectLayers: [1], budget: 64, sparseFrom: 128 },
  },
};

/** @throws {EngineError} `unsupported_model` when there is no such shape */
export function presetNamed(name: string): Preset {
  const preset = Object.hasOwn(PRESETS, name) ? PRESETS[name] : undefined;
  if (preset === undefined) {
    throw new EngineError(
      "unsupported_model",
      `Cannot make random weights: the shape must be one of ${Object.keys(PRESETS).join(", ")}, given ${name}`,
    );
  }
  return preset;
}
