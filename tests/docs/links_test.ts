/** Every relative link of the pages leads to a file, and to a heading where it names one. */

import assert from "node:assert/strict";

import { brokenLinks } from "./links.ts";
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
