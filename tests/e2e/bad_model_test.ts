/** A service with a model that cannot be loaded: one clear error, and no second try. */

import assert from "node:assert/strict";

import { startService } from "../../router/start_service.ts";
import { TIDE, withFiles } from "../support/model_directory.ts";

Deno.test("a directory in place of a weight file is one error, and the worker is not started again", async () => {
  const files: Record<string, Uint8Array> = {};
  for (const name of ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]) {
    files[name] = await Deno.readFile(`${TIDE}/${name}`);
  }
  await withFiles(files, async (directory) => {
    await Deno.mkdir(`${directory}/model.safetensors`);
    const lines: string[] = [];
    const service = await startService({ port: 0, model: directory }, { log: (line) => lines.push(line) });
    try {
      const reason = /model\.safetensors: expected a regular file, found a directory/;
      await assert.rejects(service.ready, reason);
      assert.match(await service.broken, reason);
      assert.equal(lines.filter((line) => line.includes("The worker is lost")).length, 1, lines.join("\n"));
      assert.ok(!lines.some((line) => /^\s+at /.test(line.slice(25))), "no stack trace");
    } finally {
      await service.close();
    }
  });
});

Deno.test("a context that the workers cannot hold is one error that says what they hold", async () => {
  const service = await startService({ port: 0, random: "tiny", context: 2048, kvTokens: 1024, gpu: "deno" });
  try {
    const reason =
      /a context of 2048 tokens does not fit: the workers hold 1024; --context auto takes what fits; quantised weights/;
    await assert.rejects(service.ready, reason);
    assert.match(await service.broken, reason);
  } finally {
    await service.close();
  }
});
