/** A tiny tokenizer of the sentence-piece kind, which no fixture has: ▁ for a space, tokens for bytes, a first space. */

import { JsonObject } from "../../engine/model/json_file.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";

/** Tokens: `<unk>`, `<s>`, `</s>`, 256 bytes, ▁, a, b, ab. */
export function sentencePieces(): Tokenizer {
  const byteName = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
  const entries = [
    "<unk>",
    "<s>",
    "</s>",
    ...Array.from({ length: 256 }, (_, byte) => byteName(byte)),
    "▁",
    "a",
    "b",
    "ab",
  ];
  const special = ["<unk>", "<s>", "</s>"];
  const file = {
    "added_tokens": special.map((content, id) => ({ id, content, special: true, normalized: false })),
    normalizer: {
      type: "Sequence",
      normalizers: [{ type: "Prepend", prepend: "▁" }, { type: "Replace", pattern: { String: " " }, content: "▁" }],
    },
    "pre_tokenizer": null,
    "post_processor": {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", "type_id": 0 } }, { Sequence: { id: "A", "type_id": 0 } }],
      pair: [],
      "special_tokens": { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      "unk_token": "<unk>",
      "byte_fallback": true,
      "fuse_unk": true,
      vocab: Object.fromEntries(entries.map((entry, id) => [entry, id])),
      merges: ["a b"],
    },
  };
  return new Tokenizer(new JsonObject(file, "tokenizer.json"), new JsonObject({}, "tokenizer_config.json"));
}
