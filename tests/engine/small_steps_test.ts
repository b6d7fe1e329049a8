import assert from "node:assert/strict";
import { PRESETS } from "../../engine/model/presets.ts";
import { readModelConfig } from "../../engine/model/model_config.ts";
import { hasSmallSteps } from "../../engine/small_steps.ts";
import { TIDE } from "../support/model_directory.ts";

Deno.test("hasSmallSteps() is true of the embedded model, not of one that people have", async () => {
  const large = PRESETS["llama-3-8b"]?.config;
  assert.ok(large !== undefined);
  assert.deepEqual([await readModelConfig(TIDE), large].map(hasSmallSteps), [true, false]);
});
