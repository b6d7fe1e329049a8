/** Every pattern of 16 bits, at every place in a word, against what its value is. */

import assert from "node:assert/strict";

import { bf16ToF32, fromHalf } from "../../kernels/half.ts";
import { floatsFinite, halvesBelow } from "../../kernels/magnitude.ts";

const PATTERNS = Uint16Array.from({ length: 65536 }, (_, pattern) => pattern);

Deno.test("halvesBelow() accepts exactly the finite f16 and bf16, wherever they stand", () => {
  for (const [bound, values] of [[0x7c00, fromHalf(PATTERNS)], [0x7f80, bf16ToF32(PATTERNS)]] as const) {
    // 11 numbers: whole blocks of words, single words, and half of one.
    for (const length of [1, 2, 11]) {
      for (const at of new Set([0, length >> 1, length - 1])) {
        const halves = new Uint16Array(length).fill(0x8000);
        const bytes = new Uint8Array(halves.buffer);
        for (let pattern = 0; pattern < 65536; pattern += pattern % 256 === 255 ? 1 : 7) {
          halves[at] = pattern;
          if (halvesBelow(bytes, bound) !== Number.isFinite(values[pattern])) {
            assert.fail(`pattern ${pattern.toString(16)} at ${at} of ${length}`);
          }
        }
      }
    }
  }
});

Deno.test("halvesBelow() takes any bound, and data at any byte", () => {
  const bytes = new Uint8Array(7);
  bytes.set([0x7f, 0x47, 0x7f, 0xc7], 1);
  const data = bytes.subarray(1, 5);
  assert.ok(halvesBelow(data, 0x4780));
  assert.ok(!halvesBelow(data, 0x477f));
  assert.ok(halvesBelow(new Uint8Array(0), 0x7c00));
});

Deno.test("floatsFinite() finds the one that is not", () => {
  const smallest = new Float32Array(Uint32Array.of(1).buffer)[0] ?? 0;
  const values = Float32Array.of(3.4028234663852886e38, -3.4028234663852886e38, 0, -0, smallest, 1, 2);
  assert.ok(floatsFinite(new Uint8Array(values.buffer)));
  for (const wrong of [Infinity, -Infinity, NaN]) {
    for (let at = 0; at < values.length; at++) {
      const copy = values.slice();
      copy[at] = wrong;
      assert.ok(!floatsFinite(new Uint8Array(copy.buffer)), `${wrong} at ${at}`);
    }
  }
});
