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
  readonly #tokenizer: Pick<Tokenizer, "tokenBytes" | "tokenText" | "isSpecial" | "dropsFirstSpace">;
  readonly #skipSpecialTokens: boolean;
  /** Special tokens that are kept all the same. */
  readonly #markers: readonly string[];
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #atStart = true;

  /** Begins a stream. */
  constructor(
    tokenizer: Pick<Tokenizer, "tokenBytes" | "tokenText" | "isSpecial" | "dropsFirstSpace">,
    { skipSpecialTokens = false, markers = [] }: DecodeOptions & { readonly markers?: readonly string[] } = {},
  ) {
    this.#tokenizer = tokenizer;
    this.#skipSpecialTokens = skipSpecialTokens;
    this.#markers = markers;
  }

  /** Takes the next token. @returns the text that is certain now, often with characters begun earlier; may be empty */
  push(token: number): string {
    if (this.#skipSpecialTokens && this.#isSkipped(token)) return "";
    return this.#released(this.#decoder.decode(this.#tokenizer.tokenBytes(token), { stream: true }));
  }

  /** Ends the stream. @returns U+FFFD for a character that was begun and not finished, else nothing */
  flush(): string {
    return this.#released(this.#decoder.decode());
  }

  #isSkipped(token: number): boolean {
    return this.#tokenizer.isSpecial(token) && !this.#markers.includes(this.#tokenizer.tokenText(token));
  }

  #released(text: string): string {
    if (!this.#atStart || text === "") return text;
    this.#atStart = false;
    return this.#tokenizer.dropsFirstSpace && text.startsWith(" ") ? text.slice(1) : text;
  }
}
