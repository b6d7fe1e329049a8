/**
 * Text to token ids and back, as `tokenizer.json` of a model directory says. Decoding is ours, because streams and
 * log-probabilities need the bytes of single tokens. Knows ids, text and bytes; knows nothing of chats.
 */

import { messageOf } from "../../kernels/errors.ts";
import { EngineError } from "../errors.ts";
import { readTokenizerFiles } from "../model/checkpoint.ts";
import type { JsonObject } from "../model/json_file.ts";
import { type Encoder, newEncoder } from "./encoder.ts";
import { longestTokenBytes } from "./token_bound.ts";
import { type Spelling, spellingOf } from "./token_bytes.ts";

/** How a text is encoded. */
export interface EncodeOptions {
  /** Adds what the tokenizer puts around a whole text, and the first token that the model was trained with. @default false */
  readonly addSpecialTokens?: boolean;
}

/** How ids are decoded. */
export interface DecodeOptions {
  /** Leaves special tokens out of the text. @default false */
  readonly skipSpecialTokens?: boolean;
}

/** Far above any vocabulary that exists. */
const MAX_VOCABULARY = 1 << 24;

const NO_BYTES = new Uint8Array(0);

/** The tokenizer of one model. Immutable but for a cache. */
export class Tokenizer {
  /** One more than the highest id; the model may have more rows. */
  readonly vocabSize: number;
  /** Text → id of the tokens that are not words. */
  readonly specialTokens: ReadonlyMap<string, number>;
  /** Whether decoding drops a space at the very start of a text. */
  readonly dropsFirstSpace: boolean;
  /**
   * The most UTF-8 bytes of a text that one token can stand for: a text of more bytes than that times n has more than n
   * tokens. Undefined when this tokenizer may drop or rewrite parts of a text.
   */
  readonly longestTokenBytes: number | undefined;
  readonly #encoder: Encoder;
  readonly #spelling: Spelling;
  /** Id → text of the tokens added to the vocabulary, special or not: they are spelled as plain text. */
  readonly #added: ReadonlyMap<number, string>;
  readonly #specialIds: ReadonlySet<number>;
  /** What a whole text begins with, whether or not `tokenizer.json` says so; undefined: with itself. */
  readonly #firstToken: number | undefined;
  readonly #bytes = new Map<number, Uint8Array<ArrayBuffer>>();

  /**
   * Makes a tokenizer from files already read; see {@link Tokenizer.load}.
   *
   * @param file contents of `tokenizer.json`
   * @param config contents of `tokenizer_config.json`
   * @throws {EngineError} `invalid_model`, `unsupported_model`
   */
  constructor(file: JsonObject, config: JsonObject) {
    const added = readAdded(file);
    this.#spelling = spellingOf(file);
    this.dropsFirstSpace = this.#spelling.dropsFirstSpace;
    this.vocabSize = 1 + Math.max(highestId(file), ...added.map(({ id }) => id));
    this.#added = new Map(added.map(({ id, content }) => [id, content]));
    const special = added.filter((token) => token.special);
    this.specialTokens = new Map(special.map(({ id, content }) => [content, id]));
    this.#specialIds = new Set(this.specialTokens.values());
    this.#firstToken = this.specialTokens.get(firstTokenIn(config) ?? "");
    this.#encoder = newEncoder(file, config);
    this.longestTokenBytes = longestTokenBytes(file, config, this.#spelling);
  }

  /**
   * Reads `tokenizer.json` and `tokenizer_config.json` of a directory, or what a GGUF file has in their place.
   *
   * @throws {EngineError} `invalid_model` naming the file and what was expected; `unsupported_model` for a kind of
   * tokenizer that is neither byte-level nor made of sentence pieces
   */
  static async load(model: string): Promise<Tokenizer> {
    const { tokenizer, config } = await readTokenizerFiles(model);
    return new Tokenizer(tokenizer, config);
  }

  /**
   * Encodes a text of any length; the time is proportional to it. Special tokens in the text become their ids.
   *
   * @throws {EngineError} `invalid_text` when the text has no tokens in this vocabulary, or a word of it over 1,048,576
   * characters
   */
  encode(text: string, { addSpecialTokens = false }: EncodeOptions = {}): Uint32Array<ArrayBuffer> {
    try {
      const { ids } = this.#encoder.encode(text, { add_special_tokens: addSpecialTokens });
      const first = addSpecialTokens && ids[0] !== this.#firstToken ? this.#firstToken : undefined;
      const whole = first === undefined ? ids : [first, ...ids];
      // The package gives undefined for what is not in the vocabulary, whatever its types say.
      return Uint32Array.from(whole, (id: number | undefined) => {
        if (id === undefined) throw new RangeError("a part of it is not in the vocabulary");
        return id;
      });
    } catch (cause) {
      const reason = messageOf(cause);
      throw new EngineError("invalid_text", `Cannot encode text of ${text.length} characters: ${reason}`, { cause });
    }
  }

  /** The text of a run of tokens; bytes that are not UTF-8 become U+FFFD, ids without a token become nothing. */
  decode(ids: Iterable<number>, { skipSpecialTokens = false }: DecodeOptions = {}): string {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    let text = "";
    for (const id of ids) {
      if (skipSpecialTokens && this.isSpecial(id)) continue;
      text += decoder.decode(this.tokenBytes(id), { stream: true });
    }
    text += decoder.decode();
    return this.dropsFirstSpace && text.startsWith(" ") ? text.slice(1) : text;
  }

  /** What a token says by itself; bytes that are only part of a character become U+FFFD. */
  tokenText(id: number): string {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.tokenBytes(id));
  }

  /** The bytes of a token; empty when no token has this id. The array is shared: do not write to it. */
  tokenBytes(id: number): Uint8Array<ArrayBuffer> {
    const known = this.#bytes.get(id);
    if (known !== undefined) return known;
    const text = this.#added.get(id);
    const entry = this.#encoder.id_to_token(id);
    if (text === undefined && entry === undefined) return NO_BYTES;
    const bytes = text === undefined ? this.#spelling.bytesOf(entry ?? "") : new TextEncoder().encode(text);
    this.#bytes.set(id, bytes);
    return bytes;
  }

  /** Whether this is a special token: one that marks structure rather than text. */
  isSpecial(id: number): boolean {
    return this.#specialIds.has(id);
  }
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

function readAdded(file: JsonObject): readonly AddedToken[] {
  const list = file.array("added_tokens");
  if (list === undefined) throw file.invalid("added_tokens", "a list");
  return list.map((value) => {
    const token = file.nested(value, "added_tokens");
    const content = token.string("content");
    if (content === undefined) throw token.invalid("content", "a string");
    return { id: token.integer("id", { min: 0, max: MAX_VOCABULARY - 1 }), content, special: token.flag("special") };
  });
}

/** Tokenizers of models that name a first token for other uses and omit it by default. */
const WITHOUT_FIRST_TOKEN = ["GPT2Tokenizer", "Qwen2Tokenizer"];

/** The text of the token that every whole text begins with. */
function firstTokenIn(config: JsonObject): string | undefined {
  const isDefault = !WITHOUT_FIRST_TOKEN.includes(config.string("tokenizer_class") ?? "");
  const isAdded = config.value("add_bos_token") === undefined ? isDefault : config.flag("add_bos_token");
  const name = config.value("bos_token");
  if (!isAdded || name === undefined || name === null) return undefined;
  return typeof name === "string" ? name : config.nested(name, "bos_token").string("content");
}

function highestId(file: JsonObject): number {
  const model = file.object("model");
  if (model === undefined) throw file.invalid("model", "an object");
  const vocabulary = model.object("vocab");
  if (vocabulary === undefined) throw model.invalid("vocab", "an object of ids by token");
  let highest = 0;
  for (const [token, id] of vocabulary.entries()) {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= MAX_VOCABULARY) {
      throw vocabulary.invalid(token, `an id below ${MAX_VOCABULARY}`);
    }
    highest = Math.max(highest, id);
  }
  return highest;
}
