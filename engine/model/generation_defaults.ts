/** What `generation_config.json` of a model directory says about requests that leave it open. */

import { JsonObject } from "./json_file.ts";
import { fileExists } from "./model_file.ts";

/** Defaults of a model's makers. */
export interface GenerationDefaults {
  /** The longest answer in tokens; undefined when the file does not say. */
  readonly maxNewTokens: number | undefined;
}

const ANSWER = { min: 1, max: 1 << 28 } as const;

/**
 * Reads the defaults; a directory without the file has none.
 *
 * @throws {EngineError} `invalid_model` naming the file, the field and what was expected
 */
export async function readGenerationDefaults(directory: string): Promise<GenerationDefaults> {
  const path = `${directory}/generation_config.json`;
  if (!await fileExists(path)) return { maxNewTokens: undefined };
  const file = await JsonObject.read(path);
  const given = file.value("max_new_tokens");
  return { maxNewTokens: given === undefined ? undefined : file.integer("max_new_tokens", ANSWER) };
}
