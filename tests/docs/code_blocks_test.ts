/** TypeScript in the pages type-checks, with the imports that a reader would write. */

import assert from "node:assert/strict";

import { inRoot, readPages } from "./pages.ts";

/** Type-checks the blocks of Markdown files. */
async function check(paths: readonly string[]): Promise<{ readonly success: boolean; readonly said: string }> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["check", "--doc-only", ...paths],
    cwd: inRoot("."),
    env: { NO_COLOR: "1" },
  }).output();
  return { success, said: new TextDecoder().decode(stderr) };
}

Deno.test("TypeScript blocks of the pages type-check", async () => {
  const { success, said } = await check((await readPages()).map(({ path }) => path));
  assert.ok(success, said);
});

Deno.test("a block with a wrong type is found", async () => {
  const path = await Deno.makeTempFile({ suffix: ".md" });
  try {
    await Deno.writeTextFile(path, '```ts\nconst port: number = "8000";\nexport { port };\n```\n');
    const { success, said } = await check([path]);
    assert.ok(!success);
    assert.match(said, /TS2322/);
  } finally {
    await Deno.remove(path);
  }
});
