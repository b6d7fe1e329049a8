/**
 * The sliding windows of a `config.json`: one for all layers, for none, or for some of them. Knows field names of all
 * families and their defaults; knows nothing of tensors.
 */

import { EngineError } from "../errors.ts";
import type { Architecture } from "./families.ts";
import type { JsonObject } from "./json_file.ts";
import { readLocalRope, type RopeFields } from "./rope_config.ts";

/** Layers with a window of their own, in a model whose other layers see everything. */
export interface LocalLayers {
  /** By layer. */
  readonly isLocal: readonly boolean[];
  /** A row sees itself and this many rows less one before it. */
  readonly window: number;
  /** Their rotary embedding. */
  readonly rope: Pick<RopeFields, "ropeTheta" | "ropeScaling">;
}

/** Which rows a layer's row sees. */
export interface Windows {
  /** In all layers: itself and this many rows less one before it; undefined: everything before it. */
  readonly slidingWindow: number | undefined;
  /** Undefined: all layers are alike. */
  readonly localLayers: LocalLayers | undefined;
}

const POSITIONS = { min: 1, max: 1 << 28 } as const;
const ALIKE = { slidingWindow: undefined, localLayers: undefined } as const;

/** Every n-th layer sees everything, where a file does not say which. */
const DEFAULT_PERIOD = { "gemma3_text": 6, olmo3: 4 } as const;

/** What the windows of a file depend on besides its own fields. */
export interface WindowContext {
  readonly architecture: Architecture;
  readonly layers: number;
  /** Of the layers that see everything. */
  readonly rope: LocalLayers["rope"];
}

/**
 * Reads which layers have a window.
 * @throws {EngineError} `invalid_model` for a field that is out of range or does not fit the number of layers
 */
export function readWindows(config: JsonObject, { architecture, layers, rope }: WindowContext): Windows {
  if (architecture === "llama" || architecture === "olmo2") return ALIKE;
  const isLocal = localLayersOf(config, architecture, layers);
  const locals = isLocal.filter((local) => local).length;
  if (locals === 0) return ALIKE;
  const alternates = Object.hasOwn(DEFAULT_PERIOD, architecture) || config.value("layer_types") !== undefined;
  // Files whose layers all see everything may leave the window out.
  if (!alternates && config.value("sliding_window") === undefined) return ALIKE;
  const window = config.integer("sliding_window", POSITIONS);
  if (locals === layers) return { slidingWindow: window, localLayers: undefined };
  const localLayers = { isLocal, window, rope: readLocalRope(config, architecture, rope) };
  return { slidingWindow: undefined, localLayers };
}

function localLayersOf(config: JsonObject, architecture: Architecture, layers: number): readonly boolean[] {
  const types = config.array("layer_types");
  if (types !== undefined) {
    if (types.length !== layers) throw config.invalid("layer_types", `a list of ${layers}, one for each layer`);
    return types.map((type) => isSliding(config, type));
  }
  const everyLayer = Array.from({ length: layers });
  if (architecture === "mistral" || architecture === "phi3") return everyLayer.map(() => true);
  if (architecture === "gemma3_text" || architecture === "olmo3") {
    const field = config.value("sliding_window_pattern") === undefined
      ? "_sliding_window_pattern"
      : "sliding_window_pattern";
    const period = config.integer(field, { min: 1, max: 1024 }, DEFAULT_PERIOD[architecture]);
    return everyLayer.map((_, layer) => (layer + 1) % period !== 0);
  }
  if (!config.flag("use_sliding_window")) return everyLayer.map(() => false);
  const fullLayers = config.integer("max_window_layers", { min: 0, max: 1 << 24 }, layers);
  return everyLayer.map((_, layer) => layer >= fullLayers);
}

function isSliding(config: JsonObject, type: unknown): boolean {
  if (type === "sliding_attention") return true;
  if (type === "full_attention") return false;
  throw new EngineError(
    "unsupported_model",
    `Cannot load ${config.source}: layer_types must be sliding_attention or full_attention, given ${String(type)}`,
  );
}
