import assert from "node:assert/strict";
import { at } from "../../kernels/at.ts";

Deno.test("at() gives the element, zero included, and throws beyond either end", () => {
  assert.equal(at([5, 0], 1), 0);
  assert.equal(at(Uint32Array.of(7), 0), 7);
  for (const index of [-1, 2, NaN]) {
    assert.throws(() => at([5, 0], index), {
      name: "RangeError",
      message: `Cannot read element ${index}: there are 2`,
    });
  }
});
