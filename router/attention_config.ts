/**
 * What an operator decides about attention: that of requests that do not choose, and what happens to their sparse rows.
 * Knows names, defaults and bounds; knows nothing of what they do.
 */

import { MIN_BUDGET } from "../engine/layer_plan.ts";
import type { Flags, FlagValues } from "./command.ts";
import { UsageError } from "./errors.ts";
import { DEFAULT_COVERAGE } from "./scheduling/attention_policy.ts";
import { MAX_CORRECT_EVERY } from "./scheduling/correction.ts";
import { type AttentionRequest, audits, type CorrectionRequest, NO_CORRECTION } from "./scheduling/generation.ts";

/**
 * The attention of requests that do not choose.
 *
 * @example
 * ```ts
 * const attention: AttentionConfig = { mode: "sparse", budget: "auto", coverage: 0.99, correction: "audit" };
 * ```
 */
export interface AttentionConfig {
  /** `auto` is sparse for long contexts of calibrated models. */
  readonly mode: "auto" | "dense" | "sparse";
  /**
   * Positions that a sparse layer reads; with `auto` as few as cover `coverage` of the attention, at most the model's
   * calibrated budget. @default the model's calibrated budget
   */
  readonly budget?: number | "auto";
  /** Above 0, at most 1. @default 0.98, with the budget `auto` */
  readonly coverage?: number;
  /** What happens to sparse rows. @default "refresh" */
  readonly correction?: "refresh" | "audit" | "lossless" | "off";
  /** Tokens between corrections; 0 is never; `auto` as often as is cheap, or as the agreement allows. @default "auto" */
  readonly correctEvery?: number | "auto";
}

const BOUNDS = {
  budget: { min: MIN_BUDGET, max: 2 ** 20 },
  correctEvery: { min: 0, max: MAX_CORRECT_EVERY },
} as const;

const COVERAGE = { above: 0, max: 1 } as const;

const DEFAULTS = { mode: "auto", correction: "refresh", correctEvery: "auto" } as const;

/** Flags of `serve` about attention. */
export const ATTENTION_FLAGS = {
  attention: {
    kind: "choice",
    choices: ["auto", "dense", "sparse"],
    default: DEFAULTS.mode,
    help: "attention of requests that do not choose; auto: sparse for long contexts of calibrated models",
  },
  budget: {
    kind: "integer",
    ...BOUNDS.budget,
    or: "auto",
    help: "positions a sparse layer reads; auto: as few as reach --coverage (default: from the model's calibration)",
  },
  coverage: {
    kind: "number",
    ...COVERAGE,
    help: `share of the attention that --budget auto covers (default: ${DEFAULT_COVERAGE})`,
  },
  correction: {
    kind: "choice",
    choices: ["refresh", "audit", "lossless", "off"],
    default: DEFAULTS.correction,
    help:
      "what happens to sparsely decoded rows: refresh recomputes them, audit also compares, lossless releases tokens only once verified",
  },
  correctEvery: {
    kind: "integer",
    ...BOUNDS.correctEvery,
    or: "auto",
    default: DEFAULTS.correctEvery,
    help: "tokens between corrections; 0: never; auto: by what they cost and, if lossless, by the agreement",
  },
} as const satisfies Flags;

/** What these flags say. */
export function attentionFromFlags(
  { attention: mode, budget, coverage, correction, correctEvery }: FlagValues<typeof ATTENTION_FLAGS>,
): AttentionConfig {
  return {
    mode,
    ...(budget === undefined ? {} : { budget }),
    ...(coverage === undefined ? {} : { coverage }),
    correction,
    correctEvery,
  };
}

/**
 * Fills in what is left out and checks the rest.
 * @throws {UsageError}, naming the field, its bounds and the value given
 */
export function resolveAttentionConfig(config: Partial<AttentionConfig> = {}): AttentionRequest {
  const { mode = DEFAULTS.mode, correction = DEFAULTS.correction, correctEvery = DEFAULTS.correctEvery } = config;
  checkBounds("budget", config.budget);
  checkBounds("correctEvery", correctEvery);
  return {
    mode,
    budget: configuredBudget(config),
    heads: "kv_head",
    correction: configuredCorrection(correction, correctEvery),
  };
}

function configuredCorrection(mode: CorrectionRequest["mode"], every: number | "auto"): CorrectionRequest {
  if (every !== 0) return { mode, every, perToken: false };
  if (!audits(mode)) return NO_CORRECTION;
  throw new UsageError(`Cannot configure correctEvery: correction ${mode} needs at least 1, given 0`);
}

/** What `budget` and `coverage` mean together. */
function configuredBudget({ budget, coverage }: Partial<AttentionConfig>): AttentionRequest["budget"] {
  const { above, max } = COVERAGE;
  if (coverage !== undefined && !(coverage > above && coverage <= max)) {
    throw new UsageError(`Cannot configure coverage: must be above ${above} and at most ${max}, given ${coverage}`);
  }
  if (budget === "auto") return { coverage: coverage ?? DEFAULT_COVERAGE, atMost: undefined };
  if (coverage === undefined) return budget;
  throw new UsageError(`Cannot configure coverage: it needs the budget "auto", given ${budget ?? "none"}`);
}

function checkBounds(name: keyof typeof BOUNDS, value: number | "auto" | undefined): void {
  const { min, max } = BOUNDS[name];
  if (value === undefined || value === "auto" || (Number.isInteger(value) && value >= min && value <= max)) return;
  throw new UsageError(`Cannot configure ${name}: must be an integer from ${min} to ${max}, given ${value}`);
}
