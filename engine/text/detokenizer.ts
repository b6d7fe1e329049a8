/**
 * The text of a growing answer, token by token: releases only what later tokens cannot change, so a character is
 * never split. Knows one stream of tokens; knows nothing of requests or stop strings.
 */

import type { DecodeOptions, Tokenizer } from "./tokenizer.ts";

/**
 * Decodes one stream. What `push` and `flush` give, put together, is what {@link Tokenizer.decode} gives for all
 * tokens at once.
 */
export class Detokenizer {
  readonly #tokenizer: Pick<Tokenizer, "tokenBytes" | "isSpecial" | "dropsFirstSpace">;
  readonly #skipSpecialTokens: boolean;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #atStart = true;

  /** Begins a stream. */
  constructor(
    tokenizer: Pick<Tokenizer, "tokenBytes" | "isSpecial" | "dropsFirstSpace">,
    { skipSpecialTokens = false }: DecodeOptions = {},
  ) {
    this.#tokenizer = tokenizer;
    this.#skipSpecialTokens = skipSpecialTokens;
  }

  /** Takes the next token. @returns the text that is certain now, often with characters begun earlier; may be empty */
  push(token: number): string {
    if (this.#skipSpecialTokens && this.#tokenizer.isSpecial(token)) return "";
    return this.#released(this.#decoder.decode(this.#tokenizer.tokenBytes(token), { stream: true }));
  }

  /** Ends the stream. @returns U+FFFD for a character that was begun and not finished, else nothing */
  flush(): string {
    return this.#released(this.#decoder.decode());
  }

  #released(text: string): string {
    if (!this.#atStart || text === "") return text;
    this.#atStart = false;
    return this.#tokenizer.dropsFirstSpace && text.startsWith(" ") ? text.slice(1) : text;
  }
}
