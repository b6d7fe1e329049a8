/** Tokens that the host names, and tokens that it names the places of. */

import assert from "node:assert/strict";

import { carriedFrom, carryTokens } from "../../../kernels/logits/carry_tokens.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";

const fixture = gpuFixture();

Deno.test("carryTokens() takes ids as they are, and others from their places", async () => {
  const drawn = Uint32Array.from({ length: 256 }, (_, i) => 1000 + i);
  for (const rows of [0, 1, 64, 150]) {
    const ids = Uint32Array.from({ length: rows }, (_, i) => i % 3 === 0 ? i : carriedFrom((7 * i) % 256));
    const tokens = fixture.zeros("u32", [rows]);
    carryTokens(fixture.commands, {
      given: fixture.upload("u32", ids, [rows]),
      drawn: fixture.upload("u32", drawn, [256]),
      tokens,
      rows,
    });
    const expected = Array.from({ length: rows }, (_, i) => i % 3 === 0 ? i : drawn[(7 * i) % 256]);
    assert.deepEqual([...await fixture.words(tokens)], expected, `${rows} rows`);
  }
});
