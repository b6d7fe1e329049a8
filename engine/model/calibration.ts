/**
 * The calibration file beside a model, `tidepool.json`: which layers select, the default budget, and from which context
 * on sparse decoding pays. Knows the file; `layer_plan.ts` knows what the layers then do.
 */

import { EngineError } from "../errors.ts";
import { besideModel, CALIBRATION_FILE } from "./checkpoint.ts";
import { JsonObject } from "./json_file.ts";
import { fileExists } from "./model_file.ts";
import { type Calibration, layerRoles, MIN_BUDGET } from "../layer_plan.ts";

const VERSION = 1;

/** Far above any context: a bound, so that nonsense is caught. */
const MAX_TOKENS = 1 << 28;

/**
 * Reads the calibration of a model.
 *
 * @param layers of the model: a file that names others belongs to another model
 * @returns undefined when there is no such file
 * @throws {EngineError} `invalid_model` naming the field, what was expected and what was found
 */
export async function readCalibration(model: string, layers: number): Promise<Calibration | undefined> {
  const path = besideModel(model, CALIBRATION_FILE);
  if (!await fileExists(path)) return undefined;
  const file = await JsonObject.read(path);
  file.integer("version", { min: VERSION, max: VERSION });
  return {
    selectLayers: readSelectLayers(file, layers),
    budget: file.integer("budget", { min: MIN_BUDGET, max: MAX_TOKENS }),
    sparseFrom: file.integer("sparse_from", { min: 0, max: MAX_TOKENS }),
  };
}

function readSelectLayers(file: JsonObject, layers: number): readonly number[] {
  const list = file.array("select_layers");
  if (list === undefined) throw file.invalid("select_layers", "a list of layers");
  const selectLayers = list.map((layer) => {
    if (typeof layer === "number") return layer;
    throw file.invalid("select_layers", "a list of layers");
  });
  try {
    layerRoles(layers, selectLayers);
  } catch (cause) {
    if (!(cause instanceof EngineError)) throw cause;
    throw new EngineError("invalid_model", `Cannot read ${file.source}: ${cause.message}`, { cause });
  }
  return selectLayers;
}

/**
 * Writes the calibration of a model; a reader sees the old file or the new one, never half of it.
 *
 * @param measured what led to it (accuracies, adapter, date): kept for people, never read back
 */
export async function writeCalibration(
  model: string,
  calibration: Calibration,
  measured: Readonly<Record<string, unknown>>,
): Promise<void> {
  const contents = {
    version: VERSION,
    "select_layers": calibration.selectLayers,
    budget: calibration.budget,
    "sparse_from": calibration.sparseFrom,
    measured,
  };
  const path = besideModel(model, CALIBRATION_FILE);
  const draft = `${path}.${crypto.randomUUID()}`;
  try {
    await Deno.writeTextFile(draft, `${JSON.stringify(contents, null, 2)}\n`);
    await Deno.rename(draft, path);
  } catch (cause) {
    await Deno.remove(draft).catch(() => {}); // There may be no draft; the cause is what matters.
    throw new EngineError("invalid_model", `Cannot write ${path}: ${String(cause)}`, { cause });
  }
}
