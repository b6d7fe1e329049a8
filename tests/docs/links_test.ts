/** Every relative link of the pages leads to a file, and to a heading where it names one; files that they name are there. */

import assert from "node:assert/strict";

import { brokenLinks, missingFiles } from "./links.ts";
import { readPages } from "./pages.ts";

Deno.test("every relative link of the pages leads somewhere", async () => {
  for (const page of await readPages()) assert.deepEqual(await brokenLinks(page), [], page.path);
});

Deno.test("brokenLinks() finds missing files and missing headings", async () => {
  const text = "# A, b\n[1](#a-b) [2](#b) [3](limits.md) [4](limits.md#requests) [5](limits.md#none) [6](none.md)\n" +
    "[7](https://example.org/none) [8](../examples) ![9](figures/none.svg)\n```sh\n[10](none.md)\n```\n";
  const broken = await brokenLinks({ path: "docs/page.md", text });
  assert.deepEqual(broken, ["#b", "limits.md#none", "none.md", "figures/none.svg"]);
});

Deno.test("files of ours that the pages name are there", async () => {
  for (const page of await readPages()) assert.deepEqual(await missingFiles(page), [], page.path);
});

Deno.test("missingFiles() finds files and folders that are not there, and leaves other names alone", async () => {
  const text =
    "`kernels/none.ts` `tests/docs/` `tests/none/` `router/commands/NAME.ts` `org/model` `engine/span.ts` `kernels/`\n";
  assert.deepEqual(await missingFiles({ path: "docs/page.md", text }), ["kernels/none.ts", "tests/none/"]);
});
