/**
 * The rotary part of a `config.json`: base, scaling and the context that follows from it, in the older spelling
 * (`rope_theta`, `rope_scaling`) and the newer one (`rope_parameters`). Knows field names; `rope.ts` does the arithmetic.
 */

import { EngineError } from "../errors.ts";
import type { Architecture } from "./families.ts";
import { type JsonObject, shown } from "./json_file.ts";

/** How the rotary frequencies are stretched beyond the context of the pretraining. */
export type RopeScaling =
  | { readonly kind: "none" }
  | { readonly kind: "linear"; readonly factor: number }
  | {
    readonly kind: "divisors";
    /** One for each frequency: [headDim / 2]. */
    readonly divisors: readonly number[];
  }
  | {
    readonly kind: "llama3";
    readonly factor: number;
    readonly lowFreqFactor: number;
    readonly highFreqFactor: number;
    /** Context of the pretraining, in tokens. */
    readonly originalPositions: number;
  }
  | {
    readonly kind: "yarn";
    readonly factor: number;
    readonly betaFast: number;
    readonly betaSlow: number;
    /** Context of the pretraining, in tokens. */
    readonly originalPositions: number;
    /** Cosine and sine are multiplied by it. */
    readonly attentionFactor: number;
  };

/** What {@link readRope} finds. */
export interface RopeFields {
  /** Base of the frequencies. */
  readonly ropeTheta: number;
  /** How they are stretched. */
  readonly ropeScaling: RopeScaling;
  /** In tokens; more than the file says when it gives the context before yarn. */
  readonly maxPositions: number;
}

const THETA = { above: 1, max: 1e12 } as const;
const FACTOR = { above: 0, max: 1e6 } as const;
const POSITIONS = { min: 1, max: 1 << 28 } as const;

function readLlama3(scaling: JsonObject, factor: number): RopeScaling {
  const lowFreqFactor = scaling.number("low_freq_factor", FACTOR);
  const highFreqFactor = scaling.number("high_freq_factor", FACTOR);
  if (highFreqFactor <= lowFreqFactor) {
    throw scaling.invalid("high_freq_factor", `above low_freq_factor, ${lowFreqFactor}`);
  }
  const originalPositions = scaling.integer("original_max_position_embeddings", POSITIONS);
  return { kind: "llama3", factor, lowFreqFactor, highFreqFactor, originalPositions };
}

function readYarn(scaling: JsonObject, factor: number, positions: number): RopeScaling {
  for (const field of ["mscale", "mscale_all_dim"]) {
    if (scaling.value(field) !== undefined) throw unsupported(scaling, field, "absent");
  }
  if (scaling.value("truncate") !== undefined && !scaling.flag("truncate")) {
    throw unsupported(scaling, "truncate", "true");
  }
  return {
    kind: "yarn",
    factor,
    betaFast: scaling.number("beta_fast", FACTOR, 32),
    betaSlow: scaling.number("beta_slow", FACTOR, 1),
    originalPositions: scaling.integer("original_max_position_embeddings", POSITIONS, positions),
    attentionFactor: scaling.number("attention_factor", FACTOR, factor > 1 ? 0.1 * Math.log(factor) + 1 : 1),
  };
}

function unsupported(source: JsonObject, field: string, expected: string): EngineError {
  return new EngineError(
    "unsupported_model",
    `Cannot load ${source.source}: ${field} must be ${expected}, given ${shown(source.value(field))}`,
  );
}

function readScaling(scaling: JsonObject | undefined, positions: number): RopeScaling {
  if (scaling === undefined) return { kind: "none" };
  const field = scaling.value("rope_type") === undefined ? "type" : "rope_type";
  const kind = scaling.string(field) ?? "default";
  if (kind === "default") return { kind: "none" };
  const factor = scaling.number("factor", FACTOR);
  switch (kind) {
    case "linear":
      return { kind, factor };
    case "llama3":
      return readLlama3(scaling, factor);
    case "yarn":
      return readYarn(scaling, factor, positions);
    default:
      throw unsupported(scaling, field, "default, linear, llama3 or yarn");
  }
}

/** `rope_parameters`, or those of one kind of layers where the kinds have their own. */
function ropeParameters(config: JsonObject, layers: "full_attention" | "sliding_attention"): JsonObject | undefined {
  const parameters = config.object("rope_parameters");
  return parameters?.object(layers) ?? parameters;
}

/**
 * The rotary embedding of layers with a window, in a model whose other layers have `rope`.
 * @throws {EngineError} `invalid_model` for a field out of range
 */
export function readLocalRope(
  config: JsonObject,
  architecture: Architecture,
  rope: Pick<RopeFields, "ropeTheta" | "ropeScaling">,
): Pick<RopeFields, "ropeTheta" | "ropeScaling"> {
  const { ropeTheta, ropeScaling } = rope;
  // Only the layers that see everything are stretched.
  if (architecture === "olmo3") return { ropeTheta, ropeScaling: { kind: "none" } };
  if (architecture !== "gemma3_text") return { ropeTheta, ropeScaling };
  const [holder, field] = config.object("rope_parameters")?.value("sliding_attention") === undefined
    ? [config, "rope_local_base_freq"]
    : [ropeParameters(config, "sliding_attention") ?? config, "rope_theta"];
  return { ropeTheta: holder.number(field, THETA, 10000), ropeScaling: { kind: "none" } };
}

/**
 * Reads the rotary fields of a `config.json`.
 *
 * @param positions its `max_position_embeddings`
 * @param divisors of the frequencies, for checkpoints that have them in place of a scaling
 * @throws {EngineError} `invalid_model` for a field out of range, `unsupported_model` for a scaling we do not compute
 */
export function readRope(config: JsonObject, positions: number, divisors?: readonly number[]): RopeFields {
  const parameters = ropeParameters(config, "full_attention");
  const scaling = parameters ?? config.object("rope_scaling");
  const thetaHolder = parameters?.value("rope_theta") === undefined ? config : parameters;
  for (const holder of [config, parameters]) {
    if (holder !== undefined && holder.number("partial_rotary_factor", { above: 0, max: 1 }, 1) !== 1) {
      throw unsupported(holder, "partial_rotary_factor", "1");
    }
  }
  if (divisors !== undefined && scaling !== undefined) {
    throw unsupported(config, "rope_scaling", "absent beside divisors");
  }
  const ropeScaling: RopeScaling = divisors === undefined
    ? readScaling(scaling, positions)
    : { kind: "divisors", divisors };
  // Some checkpoints keep the context of the pretraining in max_position_embeddings and leave multiplying to the reader.
  const stretched = ropeScaling.kind === "yarn" ? Math.floor(ropeScaling.originalPositions * ropeScaling.factor) : 0;
  return {
    ropeTheta: thetaHolder.number("rope_theta", THETA, 10000),
    ropeScaling,
    maxPositions: Math.max(positions, stretched),
  };
}
