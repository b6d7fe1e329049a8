/** Defaults of a model's `generation_config.json`, for requests that leave them open. */

import { readGenerationConfig } from "./checkpoint.ts";

/** Defaults of a model's makers. */
export interface GenerationDefaults {
  /** The longest answer in tokens; undefined when the file does not say. */
  readonly maxNewTokens: number | undefined;
}

const ANSWER = { min: 1, max: 1 << 28 } as const;

/**
 * Reads the defaults; a model without the file has none.
 *
 * @throws {EngineError} `invalid_model` naming the file, the field and what was expected
 */
export async function readGenerationDefaults(model: string): Promise<GenerationDefaults> {
  const file = await readGenerationConfig(model);
  if (file === undefined) return { maxNewTokens: undefined };
  const given = file.value("max_new_tokens");
  return { maxNewTokens: given === undefined ? undefined : file.integer("max_new_tokens", ANSWER) };
}
