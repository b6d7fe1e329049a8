import assert from "node:assert/strict";

import { WORD_SPLITTERS } from "../../../engine/model/gguf/word_splitters.ts";

/** The words that all steps together make of a text. */
function words(name: string, text: string): string[] {
  let parts = [text];
  for (const step of WORD_SPLITTERS[name]?.steps ?? []) {
    const { type, pattern } = step as { type: string; pattern?: { Regex: string } };
    const regex = new RegExp(type === "Digits" ? String.raw`\p{N}|[^\p{N}]+` : pattern?.Regex ?? "", "gu");
    parts = parts.flatMap((part) => part.match(regex) ?? []);
  }
  return parts;
}

for (
  const [name, expected] of [
    ["llama-bpe", ["I", "'ve", " seen", " ", "123", "45", " xs", " ...\n\n", " OK"]],
    ["dbrx", ["I", "'ve", " seen", " ", "123", "45", " xs", " ...\n\n", " OK"]],
    ["qwen2", ["I", "'ve", " seen", " ", "1", "2", "3", "4", "5", " xs", " ...\n\n", " OK"]],
    ["gpt-2", ["I", "'ve", " seen", " 12345", " xs", " ...", "\n\n", " OK"]],
    ["smollm", ["I", "'ve", " seen", " ", "1", "2", "3", "4", "5", " xs", " ...", "\n\n", " OK"]],
  ] as const
) {
  Deno.test(`The word splitter ${name} cuts as the model's own tokenizer does`, () => {
    const found = words(name, "I've seen 12345 xs ...\n\n OK");
    assert.equal(found.join(""), "I've seen 12345 xs ...\n\n OK");
    assert.deepEqual(found, expected);
  });
}
