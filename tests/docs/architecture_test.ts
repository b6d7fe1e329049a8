/** The files that a step and a request pass, as the page lists them, have what the page names. */

import assert from "node:assert/strict";
import { inRoot, readPages } from "./pages.ts";

/** Rows that begin with a file of ours. */
const ROW = /^\| `([a-z]+\/[\w/]+\.ts)` \|(.*)\|$/gm;

Deno.test("architecture.md: what a step and a request pass is there, under the names given", async () => {
  const page = (await readPages()).find(({ path }) => path === "docs/architecture.md");
  const rows = [...(page?.text ?? "").matchAll(ROW)];
  assert.ok(rows.length >= 20, `${rows.length} rows`);
  for (const [, file = "", cells = ""] of rows) {
    const source = await Deno.readTextFile(inRoot(file));
    // Types begin with a capital.
    const names = [...cells.matchAll(/`([a-z]\w*)`/g)].map(([, name]) => name);
    assert.ok(names.length > 0, `${file} is listed without a name`);
    for (const name of names) {
      assert.match(
        source,
        new RegExp(`(#|function |^  (async )?)${name}[(<]|\\.${name} = `, "m"),
        `${file}: ${name}`,
      );
    }
  }
});
