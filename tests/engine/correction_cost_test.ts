import assert from "node:assert/strict";
import { cheapCorrectionContext } from "../../engine/correction_cost.ts";

Deno.test("cheapCorrectionContext() is none where a corrected row costs as much as a decoded one, or weights are quantised", () => {
  const shape = { layers: 32, heads: 32, headDim: 128 };
  const given = { parameters: 8e9, software: false, matrix: false, quantized: false };
  assert.equal(cheapCorrectionContext(shape, given), 15_258);
  assert.equal(cheapCorrectionContext(shape, { ...given, matrix: true }), 122_070);
  assert.equal(cheapCorrectionContext(shape, { ...given, software: true }), 0);
  assert.equal(cheapCorrectionContext(shape, { ...given, quantized: true }), 0);
});
