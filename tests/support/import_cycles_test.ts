/** That a circle is found, and that type and dynamic imports make none. */

import assert from "node:assert/strict";
import { findImportCycle } from "./import_cycles.ts";

function module(specifier: string, ...dependencies: { isDynamic?: boolean; code?: { specifier: string } }[]) {
  return { specifier, dependencies };
}

function value(specifier: string) {
  return { code: { specifier } };
}

Deno.test("findImportCycle() names the modules of a circle", () => {
  const modules = [
    module("mod", value("a")),
    module("a", value("b")),
    module("b", value("c"), value("a")),
    module("c"),
  ];
  assert.deepEqual(findImportCycle({ modules }), ["a", "b", "a"]);
});

Deno.test("findImportCycle() finds none in a diamond, over types or over dynamic imports", () => {
  const modules = [
    module("mod", value("a"), value("b")),
    module("a", value("c")),
    module("b", value("c")),
    module("c", {}, { isDynamic: true, code: { specifier: "mod" } }),
  ];
  assert.equal(findImportCycle({ modules }), undefined);
});
