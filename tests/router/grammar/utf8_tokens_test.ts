import assert from "node:assert/strict";

import { Utf8Tokens } from "../../../router/grammar/utf8_tokens.ts";

/** Every byte is a token; the last one is no text. */
const STOP = 256;
const TOKENS = new Utf8Tokens([...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)), undefined]);

function isValid(bytes: readonly number[]): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes));
    return true;
  } catch (error) {
    if (error instanceof TypeError) return false;
    throw error;
  }
}

function placeAfter(bytes: readonly number[]): number | undefined {
  return bytes.reduce<number | undefined>((at, byte) => at === undefined ? at : TOKENS.after(at, byte), 0);
}

Deno.test("Utf8Tokens.after() ends between characters exactly where a decoder finds no fault", () => {
  const edges = [0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed];
  edges.push(0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff);
  for (const a of edges) {
    for (const b of edges) {
      for (const c of edges) {
        for (const bytes of [[a], [a, b], [a, b, c], [a, b, c, 0x80], [a, b, c, 0x41]]) {
          assert.equal(placeAfter(bytes) === 0, isValid(bytes), bytes.map((byte) => byte.toString(16)).join(" "));
        }
      }
    }
  }
});

Deno.test("Utf8Tokens.allowed() has the tokens that can follow, and the end only between characters", () => {
  for (const prefix of [[], [0xc3], [0xe0], [0xed, 0x9f], [0xf4], [0xf0, 0x90]]) {
    const place = placeAfter(prefix) ?? assert.fail("the prefix is valid");
    const mask = TOKENS.allowed(place);
    for (let token = 0; token <= STOP; token++) {
      const isAllowed = ((mask[token >> 5] ?? 0) >>> (token & 31) & 1) === 1;
      assert.equal(isAllowed, TOKENS.after(place, token) !== undefined);
    }
    assert.equal(TOKENS.after(place, STOP), prefix.length === 0 ? 0 : undefined);
  }
});
