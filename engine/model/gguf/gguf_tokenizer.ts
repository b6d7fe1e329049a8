/**
 * The tokenizer in the metadata of a GGUF file as the `tokenizer.json` and `tokenizer_config.json` of a Hugging Face
 * directory: byte-level byte-pair encoding with its way of splitting words, or sentence pieces with bytes for what they
 * lack. Knows the keys of both.
 */

import { EngineError } from "../../errors.ts";
import { JsonObject, shown } from "../json_file.ts";
import { mergesOfScores } from "./sentence_piece_merges.ts";
import { WORD_SPLITTERS } from "./word_splitters.ts";

const TOKENS = "tokenizer.ggml.tokens";
const MERGES = "tokenizer.ggml.merges";
const SCORES = "tokenizer.ggml.scores";
const TYPES = "tokenizer.ggml.token_type";
const SPLITTER = "tokenizer.ggml.pre";
const SPACE_FIRST = "tokenizer.ggml.add_space_prefix";

/** Parts of a `tokenizer.json` that must be there. */
const NOTHING = { normalizer: null, "pre_tokenizer": null, "post_processor": null } as const;

/** Types of tokens. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

/** A vocabulary, every list as long as its tokens. */
interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
}

/**
 * The `tokenizer.json` that a file's metadata amounts to.
 * @throws {EngineError} `invalid_model` naming the key; `unsupported_model` for a kind or a splitter that is not known
 */
export function tokenizerOf(metadata: JsonObject): JsonObject {
  const kind = metadata.string("tokenizer.ggml.model");
  const vocabulary = readVocabulary(metadata);
  const added = addedTokens(vocabulary);
  const file = kind === "gpt2"
    ? byteLevel(metadata, vocabulary)
    : kind === "llama"
    ? sentencePieces(metadata, vocabulary)
    : undefined;
  if (file !== undefined) return new JsonObject({ ...NOTHING, ...file, "added_tokens": added }, metadata.source);
  throw new EngineError(
    "unsupported_model",
    `Cannot load ${metadata.source}: tokenizer.ggml.model must be "gpt2" or "llama", given ${shown(kind)}`,
  );
}

/**
 * The `tokenizer_config.json` that a file's metadata amounts to, the chat template included.
 * @throws {EngineError} `invalid_model` naming the key
 */
export function tokenizerConfigOf(metadata: JsonObject): JsonObject {
  const tokens = strings(metadata, TOKENS);
  const text = (name: string) => {
    const key = `tokenizer.ggml.${name}_token_id`;
    if (metadata.value(key) === undefined) return undefined;
    return tokens[metadata.integer(key, { min: 0, max: tokens.length - 1 })];
  };
  const splitter = WORD_SPLITTERS[metadata.string(SPLITTER) ?? ""];
  const beginsByDefault = metadata.value("tokenizer.ggml.model") === "llama" || splitter?.addsFirstToken === true;
  const begins = metadata.value("tokenizer.ggml.add_bos_token");
  const config = {
    "bos_token": text("bos"),
    "eos_token": text("eos"),
    "unk_token": text("unknown"),
    "pad_token": text("padding"),
    "add_bos_token": begins === undefined ? beginsByDefault : metadata.flag("tokenizer.ggml.add_bos_token"),
    "chat_template": metadata.string("tokenizer.chat_template"),
  };
  const given = Object.entries(config).filter(([, value]) => value !== undefined);
  return new JsonObject(Object.fromEntries(given), metadata.source);
}

function readVocabulary(metadata: JsonObject): Vocabulary {
  const tokens = strings(metadata, TOKENS);
  const types = numbers(metadata, TYPES) ?? tokens.map(() => NORMAL);
  if (types.length !== tokens.length) {
    throw metadata.invalid(TYPES, `a list of ${tokens.length} types, one for each token`);
  }
  return { tokens, types };
}

function addedTokens({ tokens, types }: Vocabulary): readonly unknown[] {
  return tokens.flatMap((content, id) => {
    const type = types[id];
    const special = type === CONTROL || type === UNKNOWN;
    if (!special && type !== USER_DEFINED) return [];
    return [{ id, content, special, "single_word": false, lstrip: false, rstrip: false, normalized: false }];
  });
}

/** Token → id, without those that are added. */
function words({ tokens, types }: Vocabulary): Readonly<Record<string, number>> {
  const isWord = (id: number) => types[id] !== CONTROL && types[id] !== UNKNOWN && types[id] !== USER_DEFINED;
  return Object.fromEntries(tokens.flatMap((token, id) => isWord(id) ? [[token, id] as const] : []));
}

function byteLevel(metadata: JsonObject, vocabulary: Vocabulary): Readonly<Record<string, unknown>> {
  const name = metadata.string(SPLITTER);
  const splitter = WORD_SPLITTERS[name ?? ""];
  if (splitter === undefined) {
    throw new EngineError(
      "unsupported_model",
      `Cannot load ${metadata.source}: ${SPLITTER} must be one of ${Object.keys(WORD_SPLITTERS).join(", ")}, given ${
        shown(name)
      }`,
    );
  }
  const spelling = { type: "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false };
  return {
    "pre_tokenizer": { type: "Sequence", pretokenizers: [...splitter.steps, spelling] },
    decoder: { type: "ByteLevel" },
    model: {
      type: "BPE",
      vocab: words(vocabulary),
      merges: strings(metadata, MERGES),
      "ignore_merges": splitter.knowsWholeWords,
    },
  };
}

function sentencePieces(metadata: JsonObject, vocabulary: Vocabulary): Readonly<Record<string, unknown>> {
  const { tokens, types } = vocabulary;
  const scores = numbers(metadata, SCORES);
  if (scores?.length !== tokens.length) {
    throw metadata.invalid(SCORES, `a list of ${tokens.length} scores, one for each token`);
  }
  const spaceFirst = metadata.value(SPACE_FIRST) === undefined || metadata.flag(SPACE_FIRST);
  const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const unknown = tokens[types.indexOf(UNKNOWN)];
  return {
    normalizer: {
      type: "Sequence",
      normalizers: [...(spaceFirst ? [{ type: "Prepend", prepend: "▁" }] : []), replace],
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(spaceFirst ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: "BPE",
      ...(unknown === undefined ? {} : { "unk_token": unknown }),
      "byte_fallback": true,
      "fuse_unk": true,
      vocab: { ...words(vocabulary), ...(unknown === undefined ? {} : { [unknown]: types.indexOf(UNKNOWN) }) },
      merges: mergesOfScores(tokens, scores),
    },
  };
}

function strings(metadata: JsonObject, key: string): readonly string[] {
  const list = metadata.array(key);
  if (list === undefined) throw metadata.invalid(key, "a list of strings");
  return list.map((value) => {
    if (typeof value === "string") return value;
    throw metadata.invalid(key, "a list of strings");
  });
}

function numbers(metadata: JsonObject, key: string): readonly number[] | undefined {
  return metadata.array(key)?.map((value) => {
    if (typeof value === "number") return value;
    throw metadata.invalid(key, "a list of numbers");
  });
}
