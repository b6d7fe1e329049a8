/** Ids and texts against the recorded ones, both spellings of bytes, long texts, and files that are not tokenizers. */

import assert from "node:assert/strict";

import { JsonObject } from "../../../engine/model/json_file.ts";
import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { FIXTURES, readFixture, TIDE, withChangedFixture } from "../../support/model_directory.ts";
import { sentencePieces } from "../../support/sentence_pieces.ts";

interface TokenizerCase {
  readonly text: string;
  readonly ids: number[];
  /** Only where decoding does not give the text back. */
  readonly decoded?: string;
}

Deno.test("Tokenizer.encode() and decode() agree with every recorded case", async (t) => {
  const tokenizer = await Tokenizer.load(TIDE);
  const cases = await readFixture<TokenizerCase[]>("tide-10m/tokenizer.json");
  assert.equal(cases.length, 67);
  for (const { text, ids, decoded = text } of cases) {
    await t.step(JSON.stringify(text).slice(0, 60), () => {
      assert.deepEqual([...tokenizer.encode(text)], ids);
      assert.equal(tokenizer.decode(ids), decoded);
    });
  }
});

Deno.test("Tokenizer.encode() gives the recorded prompt of every model folder", async () => {
  for (const folder of ["llama", "mistral", "qwen3"]) {
    const tokenizer = await Tokenizer.load(`${FIXTURES}${folder}`);
    const { prompts } = await readFixture<{ prompts: TokenizerCase[] }>(`${folder}/expected.json`);
    for (const { text, ids } of prompts) assert.deepEqual([0, ...tokenizer.encode(text)], ids);
  }
});

Deno.test("Tokenizer knows its special tokens and leaves them out when asked", async () => {
  const tokenizer = await Tokenizer.load(TIDE);
  assert.equal(tokenizer.vocabSize, 4096);
  assert.equal(tokenizer.specialTokens.get("<|end|>"), 1);
  assert.equal(tokenizer.specialTokens.size, 8);
  assert.deepEqual([tokenizer.isSpecial(1), tokenizer.isSpecial(47), tokenizer.isSpecial(5000)], [true, false, false]);
  const ids = [0, 47, 440, 86, 1];
  assert.equal(tokenizer.decode(ids), "<|bos|>Hello<|end|>");
  assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), "Hello");
});

Deno.test("Tokenizer.tokenBytes() gives raw bytes, tokenText() what can be shown of them", async () => {
  const tokenizer = await Tokenizer.load(TIDE);
  const [first, second] = tokenizer.encode("é漢").slice(-3);
  assert.ok(first !== undefined && second !== undefined);
  assert.deepEqual([tokenizer.tokenBytes(first), tokenizer.tokenText(first)], [Uint8Array.of(0xe6), "\ufffd"]);
  assert.deepEqual(tokenizer.tokenBytes(second), Uint8Array.of(0xbc));
  assert.deepEqual(tokenizer.tokenBytes(1), new TextEncoder().encode("<|end|>"));
  const [, world] = tokenizer.encode("a the");
  assert.equal(tokenizer.tokenText(world ?? 0), " the");
  // Models often have more rows than their tokenizer has tokens.
  assert.deepEqual([tokenizer.tokenBytes(4096).length, tokenizer.decode([47, 4096, 4096, 440])], [0, "Hell"]);
  assert.equal(tokenizer.decode([]), "");
});

Deno.test("Tokenizer.decode() keeps a byte order mark and a replacement character of the text", async () => {
  const tokenizer = await Tokenizer.load(TIDE);
  for (const text of ["\ufeffa", "a\ufeff", "\ufffd"]) assert.equal(tokenizer.decode(tokenizer.encode(text)), text);
  // A lone surrogate is no character: UTF-8 cannot say it.
  assert.equal(tokenizer.decode(tokenizer.encode("a\ud800b")), "a\ufffdb");
});

Deno.test("Tokenizer.encode() takes time in proportion to the text, whatever the text is", async () => {
  const tokenizer = await Tokenizer.load(TIDE);
  const needles = await Deno.readTextFile(`${FIXTURES}tide-10m/needles.jsonl`);
  const millisecondsFor = (text: string) => {
    const start = performance.now();
    tokenizer.encode(text);
    return performance.now() - start;
  };
  // Fills the cache of words: a repeated hit in a full cache was the slowest case of all.
  const usualMs = millisecondsFor(needles.slice(0, 500_000));
  for (const unit of ["7", "a", " ", "\n", "漢", "the needle "]) {
    const text = unit.repeat(200_000 / unit.length);
    const ms = millisecondsFor(text);
    // Up to 1.6 times as long, however busy the machine is; quadratic time would be minutes, the cache's was 6 s.
    assert.ok(ms < 10 * usualMs, `${JSON.stringify(unit)}: ${ms} ms, other text took ${usualMs}`);
  }
});

Deno.test("Tokenizer reads sentence pieces: ▁, byte tokens, and the space that decoding drops", () => {
  const tokenizer = sentencePieces();
  const ids = tokenizer.encode("ab é");
  assert.deepEqual(Array.from(ids, (id) => tokenizer.tokenText(id)), [" ", "ab", " ", "\ufffd", "\ufffd"]);
  assert.equal(tokenizer.decode(ids), "ab é");
  assert.deepEqual([...tokenizer.encode("ab", { addSpecialTokens: true })].slice(0, 1), [1]);
});

Deno.test("Tokenizer.encode() begins a whole text with the model's first token, once, unless the model says not to", async () => {
  const file = new JsonObject(await readFixture<Record<string, unknown>>("llama/tokenizer.json"), "tokenizer.json");
  const idsUnder = (config: object) => {
    const tokenizer = new Tokenizer(file, new JsonObject(config, "tokenizer_config.json"));
    const plain = [...tokenizer.encode("ab")];
    return [...tokenizer.encode("ab", { addSpecialTokens: true })].slice(0, -plain.length);
  };
  const bos = { "bos_token": "<|bos|>" };
  assert.deepEqual(idsUnder(bos), [0]);
  assert.deepEqual(idsUnder({ "bos_token": { content: "<|bos|>" } }), [0]);
  for (const config of [{}, { "bos_token": null }, { ...bos, "add_bos_token": false }]) {
    assert.deepEqual(idsUnder(config), []);
  }
  assert.deepEqual(idsUnder({ ...bos, "tokenizer_class": "GPT2Tokenizer" }), []);
  assert.deepEqual(idsUnder({ ...bos, "tokenizer_class": "GPT2Tokenizer", "add_bos_token": true }), [0]);
  const tide = await Tokenizer.load(TIDE);
  assert.deepEqual([...tide.encode("<|bos|>Hello", { addSpecialTokens: true })], [0, ...tide.encode("Hello")]);
});

const FILE = "tokenizer.json";

Deno.test("Tokenizer.load() names the file and what was expected", async () => {
  const sound = await readFixture<Record<string, unknown>>(`llama/${FILE}`);
  const model = Object(sound["model"]);
  const cases = [
    [{ [FILE]: undefined }, /tokenizer\.json: no such file$/],
    [{ "tokenizer_config.json": undefined }, /tokenizer_config\.json: no such file$/],
    [{ [FILE]: JSON.stringify(sound).slice(0, 2000) }, /tokenizer\.json: expected a JSON object: /],
    [{ [FILE]: { ...sound, model: undefined } }, /tokenizer\.json: model must be an object, given nothing$/],
    [{ [FILE]: { ...sound, model: { ...model, vocab: 3 } } }, /model, vocab: expected a JSON object, given 3$/],
    [{ [FILE]: { ...sound, model: { ...model, vocab: { a: -1 } } } }, /vocab: a must be an id below \d+, given -1$/],
    [{ [FILE]: { ...sound, model: { ...model, merges: 3 } } }, /tokenizer\.json: expected a tokenizer: /],
    [{ [FILE]: { ...sound, "added_tokens": [{ id: 1 }] } }, /added_tokens: content must be a string, given nothing$/],
    [{ [FILE]: { ...sound, "added_tokens": undefined } }, /added_tokens must be a list, given nothing$/],
    [{ [FILE]: { ...sound, "pre_tokenizer": { type: "Unheard" } } }, /expected a tokenizer: .*Unheard/],
  ] as const;
  for (const [changes, message] of cases) {
    await withChangedFixture("llama", changes, async (directory) => {
      await assert.rejects(Tokenizer.load(directory), { name: "EngineError", code: "invalid_model", message });
    });
  }
});

Deno.test("Tokenizer refuses a decoder whose tokens are not bytes", async () => {
  const sound = await readFixture<Record<string, unknown>>(`llama/${FILE}`);
  const config = new JsonObject({}, "tokenizer_config.json");
  for (const decoder of [{ type: "WordPiece" }, null]) {
    assert.throws(() => new Tokenizer(new JsonObject({ ...sound, decoder }, FILE), config), {
      code: "unsupported_model",
      message: /decoder must contain ByteLevel, ByteFallback or Metaspace/,
    });
  }
});

Deno.test("Tokenizer.encode() refuses a word whose merges would take gigabytes, and takes as much text in words", async () => {
  const tokenizer = await Tokenizer.load(TIDE);
  assert.throws(() => tokenizer.encode("a".repeat(2 ** 20 + 1)), {
    code: "invalid_text",
    message: "Cannot encode text of 1048577 characters: a word of 1048577 characters exceeds 1048576",
  });
  assert.ok(tokenizer.encode("a ".repeat(2 ** 19 + 1)).length > 2 ** 19);
});
