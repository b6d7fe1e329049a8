/** No text has fewer tokens than its bytes divided by the longest token; tokenizers that drop text promise nothing. */

import assert from "node:assert/strict";
import fc from "fast-check";

import { JsonObject } from "../../../engine/model/json_file.ts";
import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { readFixture, TIDE } from "../../support/model_directory.ts";
import { sentencePieces } from "../../support/sentence_pieces.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text).length;

Deno.test("Tokenizer.longestTokenBytes is that of the longest entry", async () => {
  assert.equal((await Tokenizer.load(TIDE)).longestTokenBytes, 14);
  // `<0x00>`, as text.
  assert.equal(sentencePieces().longestTokenBytes, 6);
});

/** A copy of a sound tokenizer with other fields. */
async function changed(fields: object, config: object = {}): Promise<Tokenizer> {
  const file = await readFixture<Record<string, unknown>>("llama/tokenizer.json");
  return new Tokenizer(new JsonObject({ ...file, ...fields }, "tokenizer.json"), new JsonObject(config, "config"));
}

Deno.test("no text has fewer tokens than its bytes say", async () => {
  const composing = await changed({ normalizer: { type: "NFC" } });
  assert.equal(composing.longestTokenBytes, 3 * 14);
  const tokenizers = [await Tokenizer.load(TIDE), sentencePieces(), composing];
  const part = fc.oneof(
    fc.string({ unit: "grapheme", maxLength: 20 }),
    fc.constantFrom("▁▁▁▁", "    ", "\n\n", "<|user|>", "<s>", "<0x41>", "abab", "\u212a\u0327", "\u1112\u1161\u11ab"),
  );
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 8 }), (parts) => {
      const text = parts.join("");
      // A lone half of a pair is written as 3 bytes, and read as nothing by some.
      fc.pre(text.isWellFormed());
      for (const tokenizer of tokenizers) {
        const least = bytesOf(text) / (tokenizer.longestTokenBytes ?? 0);
        assert.ok(tokenizer.encode(text).length >= least, JSON.stringify(text));
      }
    }),
    { numRuns: 300 },
  );
});

const added = (fields: object) => ({
  "added_tokens": [{ id: 0, content: "<mask>", special: true, normalized: false, ...fields }],
});

Deno.test("Tokenizer.longestTokenBytes is undefined where a tokenizer may drop text", async (t) => {
  const cases: readonly (readonly [string, object, object?])[] = [
    ["an added token that takes the space before it", added({ lstrip: true })],
    ["an added token that takes the space after it", added({ rstrip: true })],
    ["a normalizer that strips", { normalizer: { type: "Strip", "strip_left": true, "strip_right": true } }],
    ["a normalizer that drops accents", {
      normalizer: { type: "Sequence", normalizers: [{ type: "NFD" }, { type: "StripAccents" }] },
    }],
    ["a replacement that is shorter", {
      normalizer: { type: "Replace", pattern: { String: "long" }, content: "l" },
    }],
    ["words without the spaces between them", { "pre_tokenizer": { type: "WhitespaceSplit" } }],
    ["a split that removes", {
      "pre_tokenizer": { type: "Split", pattern: { Regex: " " }, behavior: "Removed", invert: false },
    }],
    ["spaces that are collapsed", {}, { "remove_space": true }],
  ];
  for (const [what, fields, config] of cases) {
    await t.step(what, async () => {
      assert.equal((await changed(fields, config)).longestTokenBytes, undefined);
    });
  }
  const { model } = await readFixture<{ model: { vocab: Record<string, number> } }>("llama/tokenizer.json");
  const { a: _, ...vocab } = model.vocab;
  assert.equal((await changed({ model: { ...model, vocab } })).longestTokenBytes, undefined, "a byte without a token");
});
