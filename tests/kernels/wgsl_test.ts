import assert from "node:assert/strict";
import { spread, unroll } from "../../kernels/wgsl.ts";

Deno.test("spread() covers every count within the limit of a dimension, wasting less than a row", () => {
  for (const count of [0, 1, 65535, 65536, 131071, 2 ** 24 + 1, 2 ** 31]) {
    const [x, y, z] = spread(count);
    assert.ok(x <= 65535 && y <= 65535 && z === 1, `${count}: [${x}, ${y}, ${z}]`);
    assert.ok(x * y >= count && x * y - count < Math.max(1, y), `${count}: [${x}, ${y}]`);
  }
});

Deno.test("unroll() repeats a piece once for each index", () => {
  assert.equal(unroll(3, (i) => `a${i};`), "a0;\na1;\na2;");
  assert.equal(unroll(0, () => "never"), "");
});
