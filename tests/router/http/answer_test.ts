/** Token events to text: what is held back, what is left out, what is counted. */

import fc from "fast-check";
import assert from "node:assert/strict";

import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { type AnswerOptions, type AnswerPiece, readAnswer } from "../../../router/http/answer.ts";
import type { GenerationRequest } from "../../../router/scheduling/generation.ts";
import { FakeGeneration } from "../../support/fake_generator.ts";
import { MODEL_DIRECTORY } from "../../support/test_service.ts";
import { NO_CORRECTION } from "../../support/generation_request.ts";

const tokenizer = await Tokenizer.load(MODEL_DIRECTORY);
const END = 1;

const PLAIN: AnswerOptions = {
  tokenizer,
  stopTokens: [END],
  listedStopTokens: [],
  stopStrings: [],
  includeStopString: false,
  skipSpecialTokens: true,
  form: { tools: undefined, reasoning: undefined },
  markers: [],
};

/** Reads an answer whose tokens are those of a text, cut short at `maxTokens`. */
async function read(
  text: string,
  options: Partial<AnswerOptions> = {},
  { maxTokens = 10_000, topLogprobs }: { maxTokens?: number; topLogprobs?: number } = {},
): Promise<{ pieces: AnswerPiece[]; text: string; generation: FakeGeneration }> {
  const request: GenerationRequest = {
    id: "x",
    requestId: "x",
    choices: 1,
    priority: 0,
    promptTokens: Uint32Array.of(0),
    maxTokens,
    sampling: { ...GREEDY, topLogprobs },
    attention: { mode: "auto", budget: undefined, heads: "kv_head", correction: NO_CORRECTION },
    stopTokens: [END],
    cacheSalt: "",
    traceparent: undefined,
  };
  const generation = new FakeGeneration(request, { tokens: [...tokenizer.encode(text), END] });
  const pieces: AnswerPiece[] = [];
  for await (const piece of readAnswer(generation, { ...PLAIN, ...options })) pieces.push(piece);
  return { pieces, generation, text: pieces.map((piece) => piece.kind === "prefill" ? "" : piece.text).join("") };
}

Deno.test("readAnswer() gives the text of the tokens, whatever it is, and never half a character", async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: "binary", maxLength: 40 }), async (given) => {
      const { text } = await read(given);
      assert.equal(text, tokenizer.decode(tokenizer.encode(given), { skipSpecialTokens: true }));
    }),
    { numRuns: 200 },
  );
});

Deno.test("readAnswer() shows a character cut off by the length as one replacement", async () => {
  const { text, pieces } = await read("🐙", {}, { maxTokens: 1 });
  assert.equal(text, "\ufffd");
  const end = pieces.at(-1);
  assert.ok(end?.kind === "end" && end.reason === "length" && end.text === "\ufffd");
});

Deno.test("readAnswer() releases a possible stop string when it turns out to be none", async () => {
  const { text, pieces } = await read("one two thr", { stopStrings: ["three"] });
  assert.equal(text, "one two thr");
  const end = pieces.at(-1);
  assert.ok(end?.kind === "end" && end.stopReason === undefined);
});

Deno.test("readAnswer() cuts at a stop string wherever the tokens are cut, and counts what it took", async () => {
  const given = "The whale, the sea, and the harpoon were all he had";
  const stops = ["the sea", "harpoon", " all"];
  for (const stop of stops) {
    const { text, pieces, generation } = await read(given, { stopStrings: [stop] });
    assert.equal(text, given.slice(0, given.indexOf(stop)));
    const end = pieces.at(-1);
    assert.ok(end?.kind === "end" && end.stopReason === stop && end.reason === "stop");
    assert.equal(end.usage.completionTokens, pieces.length - 1);
    assert.ok(generation.cancelled);
  }
});

Deno.test("readAnswer() scores every token but the one that ends it, at its place in the text", async () => {
  const given = "né🐙 x";
  const { pieces, text } = await read(given, {}, { topLogprobs: 1 });
  const scored = pieces.flatMap((piece) => piece.kind === "text" && piece.scored ? [piece.scored] : []);
  assert.deepEqual(scored.flatMap((token) => token.bytes), [...new TextEncoder().encode(given)]);
  assert.ok(scored.every((token) => token.top.length === 1 && token.logprob === -0.25));
  const last = scored.at(-1);
  assert.equal(text.slice(last?.offset), last?.text);
});
