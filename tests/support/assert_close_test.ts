/** That the comparison itself can fail. */

import assert from "node:assert/strict";
import { assertClose } from "./assert_close.ts";

Deno.test("assertClose() accepts what is within both bounds", () => {
  assertClose([1, 2.001], [1, 2], { nmse: 1e-6, maxAbs: 2e-3 });
  assertClose([], [], { nmse: 0, maxAbs: 0 });
  assertClose([0, 0], [0, 0], { nmse: 0 });
});

Deno.test("assertClose() refuses what exceeds one bound, is not finite or has another length", () => {
  assert.throws(() => assertClose([1, 2.1], [1, 2], { nmse: 1e-3, maxAbs: 1 }), /NMSE/);
  assert.throws(() => assertClose([1, 2.1], [1, 2], { nmse: 1, maxAbs: 0.01 }), /at 1: 2.1 instead of 2/);
  assert.throws(() => assertClose([NaN, 9], [1, 2], { maxAbs: 100 }), /at 0: NaN/);
  assert.throws(() => assertClose([1e-9], [0], { nmse: 1 }), /NMSE Infinity/);
  assert.throws(() => assertClose([Infinity], [1], { nmse: 1 }), /NMSE Infinity/);
  assert.throws(() => assertClose([1], [1, 2], { nmse: 1 }), /has 1 values, expected 2/);
});
