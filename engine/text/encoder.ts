/**
 * Text to ids by the tokenizer package (imported here only); made fit for long texts without changing
 * what it gives: words are split by one native match, and the tokens of short ones are remembered.
 */

import { messageOf } from "../../kernels/errors.ts";
import {
  BPE,
  ByteLevelPreTokenizer,
  SequencePreTokenizer,
  SplitPreTokenizer,
  Tokenizer as Encoder,
} from "@huggingface/tokenizers";

import { EngineError } from "../errors.ts";
import type { JsonObject } from "../model/json_file.ts";

export type { Encoder };

/** Enough for the words of a long text. */
const CACHED_WORDS = 10_000;

/** V8 copies substrings up to this length; a longer one would keep the whole text it was cut from in memory. */
const COPIED_CHARS = 12;

/** Tokens of words seen lately. */
class WordCache {
  readonly #words = new Map<string, string[]>();

  get(word: string): string[] | undefined {
    return this.#words.get(word);
  }

  put(word: string, tokens: string[]): void {
    if (this.#words.size >= CACHED_WORDS) this.#words.clear();
    this.#words.set(word, tokens);
  }

  clear(): void {
    this.#words.clear();
  }
}

/**
 * Makes the encoder of a model directory.
 *
 * @param file contents of `tokenizer.json`
 * @param config contents of `tokenizer_config.json`
 * @throws {EngineError} `invalid_model` when the package cannot make one of them
 */
export function newEncoder(file: JsonObject, config: JsonObject): Encoder {
  try {
    const encoder = new Encoder(Object.fromEntries(file.entries()), Object.fromEntries(config.entries()));
    accelerate(encoder);
    return encoder;
  } catch (cause) {
    const reason = messageOf(cause);
    throw new EngineError("invalid_model", `Cannot read ${file.source}: expected a tokenizer: ${reason}`, { cause });
  }
}

/**
 * Speeds up an encoder in place; one of another kind than byte-pair encoding stays as it is.
 *
 * The package's own cache reorders itself at every hit: with 10,000 words in it that takes 25 µs a word, 2.8 s for
 * 100,000 digits instead of 0.1 s. Spelling words in bytes takes longer than merging them; so the tokens of a word are
 * looked up before it is spelled: 4 MB of short words take 1 s instead of 4 s.
 */
function accelerate(encoder: Encoder): void {
  const { model, pre_tokenizer: splitter } = encoder;
  if (!(model instanceof BPE)) return;
  Object.assign(model, { cache: new WordCache() });
  if (!(splitter instanceof SequencePreTokenizer)) return;
  for (const step of splitter.tokenizers) if (step instanceof SplitPreTokenizer) splitByMatch(step);
  const spelling = splitter.tokenizers.at(-1);
  const spellsOnly = spelling instanceof ByteLevelPreTokenizer && !spelling.use_regex && !spelling.add_prefix_space;
  if (spellsOnly) spellAfterLookup(model, splitter, spelling);
}

/** A pattern that matches all of a text splits it into its matches; only what it leaves out needs the slower way. */
function splitByMatch(split: SplitPreTokenizer): void {
  const { pattern, config: { invert, behavior } } = split;
  if (pattern === null || invert || behavior?.toLowerCase() === "removed") return;
  const slowly = split.pre_tokenize_text.bind(split);
  Object.assign(split, {
    "pre_tokenize_text"(text: string): string[] {
      const words: string[] = text.match(pattern) ?? [];
      let matched = 0;
      for (const word of words) {
        if (word.length === 0) return slowly(text);
        matched += word.length;
      }
      return matched === text.length ? words : slowly(text);
    },
  });
}

/** Merging takes some 200 bytes and 1.5 µs a character, so that 8 MiB without a space would take 1.6 GB. */
const MAX_WORD_CHARS = 1 << 20;

/** Takes the last step from the splitter and makes it part of the model, where words are looked up first. */
function spellAfterLookup(model: BPE, splitter: SequencePreTokenizer, spelling: ByteLevelPreTokenizer): void {
  splitter.tokenizers.pop();
  const known = new WordCache();
  const merge = model.encode.bind(model);
  const encodeWord = (word: string): string[] => {
    if (word.length > MAX_WORD_CHARS) {
      throw new RangeError(`a word of ${word.length} characters exceeds ${MAX_WORD_CHARS}`);
    }
    const tokens = merge(spelling.pre_tokenize_text(word));
    if (word.length <= COPIED_CHARS) known.put(word, tokens);
    return tokens;
  };
  Object.assign(model, {
    encode(words: readonly string[]): string[] {
      const tokens: string[] = [];
      for (const word of words) {
        for (const token of known.get(word) ?? encodeWord(word)) tokens.push(token);
      }
      return tokens;
    },
  });
}
