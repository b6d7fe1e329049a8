/** Files and functions that are too long are reported, and no others. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import plugin from "./lint_lengths.ts";

/** What is reported of a file of the project. */
function reported(path: string, source: string): readonly string[] {
  const file = fileURLToPath(new URL(`../../${path}`, import.meta.url));
  return Deno.lint.runPlugin(plugin, file, source).map(({ message }) => message);
}

/** A function of so many lines, its first and last among them. */
const OF = {
  declaration: (lines: number) => `function f() {\n${"  f();\n".repeat(lines - 2)}}\n`,
  method: (lines: number) => `class A {\n  m() {\n${"    f();\n".repeat(lines - 2)}  }\n}\n`,
  arrow: (lines: number) => `const f = () => {\n${"  f();\n".repeat(lines - 2)}};\n`,
};

for (const [kind, source] of Object.entries(OF)) {
  Deno.test(`lint_lengths: in rooms, ${kind}s have at most 40 lines`, () => {
    const before = "// “Signs of several bytes”: ∞ – ×\n";
    assert.deepEqual(reported("engine/a.ts", before + source(40)), []);
    assert.deepEqual(reported("engine/a.ts", before + source(41)), [
      "A function has at most 40 lines, this one has 41",
    ]);
    assert.deepEqual(reported("tests/engine/a_test.ts", source(41)), []);
  });
}

Deno.test("lint_lengths: a file has at most 300 lines, tests included", () => {
  assert.deepEqual(reported("tests/engine/a_test.ts", "f();\n".repeat(300)), []);
  assert.deepEqual(reported("tests/engine/a_test.ts", "f();\n".repeat(301)), [
    "A file has at most 300 lines, this one has 301",
  ]);
});
