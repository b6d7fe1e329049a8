/** The built page in the repository is what its sources make, and small. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { gzipSync } from "node:zlib";
import { fileURLToPath, pathToFileURL } from "node:url";

import { buildPage, BUILT } from "../../../router/page/build.ts";
import { findImportCycle } from "../../support/import_cycles.ts";

const MAX_BYTES = 150 * 1024;

Deno.test("deno task page makes the files that are in the repository, at most 150 KB compressed", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const folder = pathToFileURL(`${directory}/`);
    await buildPage(folder);
    let bytes = 0;
    const files = await Array.fromAsync(Deno.readDir(folder), ({ name }) => name);
    assert.deepEqual(files.sort(), (await Array.fromAsync(Deno.readDir(BUILT), ({ name }) => name)).sort());
    for (const file of files) {
      const [made, kept] = [await Deno.readFile(new URL(file, folder)), await Deno.readFile(new URL(file, BUILT))];
      assert.ok(Buffer.from(made).equals(Buffer.from(kept)), `${file} is out of date: run deno task page`);
      bytes += gzipSync(kept, { level: 9 }).length;
    }
    assert.ok(bytes <= MAX_BYTES, `${bytes} bytes`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("the page's modules do not import each other in circles", async () => {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", "main.tsx"],
    cwd: fileURLToPath(new URL("../", BUILT)),
  }).output();
  assert.equal(findImportCycle(JSON.parse(new TextDecoder().decode(stdout))), undefined);
});
