/** The file of measured tiles: written, read again, and ignored where it is anything else. */

import assert from "node:assert/strict";

import { keepChoices, readChoices } from "../../engine/tile_cache.ts";
import { withFiles } from "../support/model_directory.ts";

const CHOICES = {
  "deno, GPU one": { "512 by 64×64 f16": "small" },
  "dawn, GPU one": { "512 by 64×64 f16": "large" },
} as const;

Deno.test("readChoices() gives what keepChoices() kept, and nothing where there is no file", async () => {
  await withFiles({}, async (directory) => {
    const lines: string[] = [];
    const log = (line: string) => lines.push(line);
    const path = `${directory}/tiles.json`;
    assert.deepEqual(await readChoices(path, log), {});
    await keepChoices(path, CHOICES, log);
    assert.deepEqual(await readChoices(path, log), CHOICES);
    assert.deepEqual(lines, []);
  });
});

Deno.test("readChoices() ignores a file that is cut short, from another version, too large or no file, and says so", async () => {
  const files = {
    cut: `{"version": 2, "adapters": {"a": {"512 b`,
    older: { version: 0, adapters: {} },
    list: [],
    flat: { version: 2, adapters: { a: "small" } },
    word: { version: 2, adapters: { a: { k: "medium" } } },
    large: new Uint8Array(2 ** 20 + 1),
  };
  await withFiles(files, async (directory) => {
    for (const name of [...Object.keys(files), "."]) {
      const lines: string[] = [];
      assert.deepEqual(await readChoices(`${directory}/${name}`, (line) => lines.push(line)), {}, name);
      assert.equal(lines.length, 1);
      assert.match(lines[0] ?? "", /^Cannot use the tiles in .*: ./);
    }
  });
});

Deno.test("keepChoices() says why it could not write, and goes on", async () => {
  const lines: string[] = [];
  await keepChoices("/nowhere/at/all/tiles.json", CHOICES, (line) => lines.push(line));
  assert.match(lines[0] ?? "", /^Cannot keep the tiles in \/nowhere\/at\/all\/tiles\.json: /);
});
