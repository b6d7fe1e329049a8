/** That circles of values and of types are found, and that dynamic imports make none. */

import assert from "node:assert/strict";
import { findImportCycle } from "./import_cycles.ts";

interface Dependency {
  readonly isDynamic?: boolean;
  readonly code?: { readonly specifier: string };
  readonly type?: { readonly specifier: string };
}

function module(specifier: string, ...dependencies: Dependency[]) {
  return { specifier, dependencies };
}

function value(specifier: string): Dependency {
  return { code: { specifier } };
}

function type(specifier: string): Dependency {
  return { type: { specifier } };
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

Deno.test("findImportCycle() finds a circle that types close, alone or with values", () => {
  assert.deepEqual(findImportCycle({ modules: [module("a", type("b")), module("b", type("a"))] }), ["a", "b", "a"]);
  assert.deepEqual(findImportCycle({ modules: [module("a", value("b")), module("b", type("a"))] }), ["a", "b", "a"]);
});

Deno.test("findImportCycle() finds none in a diamond or over dynamic imports", () => {
  const modules = [
    module("mod", value("a"), type("b")),
    module("a", value("c")),
    module("b", type("c")),
    module("c", {}, { isDynamic: true, code: { specifier: "mod" } }),
  ];
  assert.equal(findImportCycle({ modules }), undefined);
});
