/** The length of an answer that a model's makers chose, files without one, and files that lie. */

import assert from "node:assert/strict";

import { readGenerationDefaults } from "../../../engine/model/generation_defaults.ts";
import { TIDE, withFiles } from "../../support/model_directory.ts";

const FILE = "generation_config.json";

Deno.test("readGenerationDefaults() gives max_new_tokens, 256 of the embedded model", async () => {
  assert.deepEqual(await readGenerationDefaults(TIDE), { maxNewTokens: 256 });
  await withFiles({ [FILE]: { "max_new_tokens": 2048 } }, async (directory) => {
    assert.deepEqual(await readGenerationDefaults(directory), { maxNewTokens: 2048 });
  });
});

Deno.test("readGenerationDefaults() gives no length where the file or the field is missing", async () => {
  for (const files of [{}, { [FILE]: {} }, { [FILE]: { "max_new_tokens": null } }, { [FILE]: { "max_length": 20 } }]) {
    await withFiles(files, async (directory) => {
      assert.deepEqual(await readGenerationDefaults(directory), { maxNewTokens: undefined });
    });
  }
});

Deno.test("readGenerationDefaults() names the file and what was expected", async () => {
  for (const given of [0, -1, 1.5, "many", 2 ** 40]) {
    await withFiles({ [FILE]: { "max_new_tokens": given } }, async (directory) => {
      await assert.rejects(readGenerationDefaults(directory), {
        name: "EngineError",
        code: "invalid_model",
        message: /generation_config\.json: max_new_tokens must be an integer from 1 to \d+, given /,
      });
    });
  }
});
