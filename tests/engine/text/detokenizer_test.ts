/** A stream says the same as its tokens at once, and never more than is certain. */

import assert from "node:assert/strict";
import fc from "fast-check";

import { Detokenizer } from "../../../engine/text/detokenizer.ts";
import { type DecodeOptions, Tokenizer } from "../../../engine/text/tokenizer.ts";
import { TIDE } from "../../support/model_directory.ts";
import { sentencePieces } from "../../support/sentence_pieces.ts";

const tide = await Tokenizer.load(TIDE);

/** What each token releases, and last what flushing does. */
function stream(tokenizer: Tokenizer, ids: Iterable<number>, options: DecodeOptions = {}): string[] {
  const detokenizer = new Detokenizer(tokenizer, options);
  return [...Array.from(ids, (id) => detokenizer.push(id)), detokenizer.flush()];
}

for (const [kind, tokenizer] of [["byte-level tokens", tide], ["sentence pieces", sentencePieces()]] as const) {
  Deno.test(`Detokenizer gives what decode() gives, for any ${kind}`, () => {
    // The lowest ids are special tokens and bytes, so most sequences hold broken characters.
    const id = fc.oneof(fc.nat(tokenizer.vocabSize), fc.nat(Math.min(280, tokenizer.vocabSize)));
    fc.assert(
      fc.property(fc.array(id, { maxLength: 40 }), fc.boolean(), (ids, skipSpecialTokens) => {
        const pieces = stream(tokenizer, ids, { skipSpecialTokens });
        assert.equal(pieces.join(""), tokenizer.decode(ids, { skipSpecialTokens }));
      }),
      { numRuns: 500 },
    );
  });

  Deno.test(`Detokenizer gives a text back and cuts it between characters only, for ${kind}`, () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 30 }), (text) => {
        // NFC and the like are no part of these tokenizers: the text comes back as it was.
        const pieces = stream(tokenizer, tokenizer.encode(text));
        assert.equal(pieces.join(""), text.toWellFormed());
        for (const piece of pieces) {
          assert.ok(piece.isWellFormed() && (text.includes("\ufffd") || !piece.includes("\ufffd")));
        }
      }),
      { numRuns: 300 },
    );
  });
}

Deno.test("Detokenizer.push() is silent until a character is whole", () => {
  const ids = tide.encode("👩");
  assert.equal(ids.length, 4);
  assert.deepEqual(stream(tide, ids), ["", "", "", "👩", ""]);
});

Deno.test("Detokenizer.flush() says that a character was left unfinished", () => {
  assert.deepEqual(stream(tide, tide.encode("a👩").slice(0, -1)), ["a", "", "", "", "\ufffd"]);
});

Deno.test("Detokenizer lets go of a broken character as soon as it is known to be broken", () => {
  const [first] = tide.encode("👩");
  const [letter] = tide.encode("a");
  assert.deepEqual(stream(tide, [first ?? 0, letter ?? 0]), ["", "\ufffda", ""]);
});

Deno.test("Detokenizer joins the bytes on both sides of a special token that it leaves out", () => {
  const [first = 0, ...rest] = tide.encode("漢");
  assert.equal(rest.length, 2);
  assert.deepEqual(stream(tide, [first, 1, ...rest], { skipSpecialTokens: true }), ["", "", "", "漢", ""]);
});
