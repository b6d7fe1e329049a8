/**
 * A tokenizer's vocabulary as the grammar library reads it: every token in the byte-level spelling, whatever spelling the
 * model uses. Knows bytes and ids; knows nothing of grammars.
 */

import type { Tokenizer } from "../../engine/text/tokenizer.ts";

/** The bytes that stand for themselves in the byte-level spelling, both ends included. */
const PRINTABLE = [[0x21, 0x7e], [0xa1, 0xac], [0xae, 0xff]] as const;

const CHARACTER_OF_BYTE: readonly string[] = (() => {
  let hidden = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = PRINTABLE.some(([first, last]) => byte >= first && byte <= last);
    return String.fromCharCode(isPrintable ? byte : 0x100 + hidden++);
  });
})();

/**
 * The spelling of each token, by id. Special tokens are empty, which keeps them out of every grammar, but for markers:
 * those a tool format writes as text.
 */
export function byteLevelVocabulary(tokenizer: Tokenizer, markers: ReadonlySet<string>): string[] {
  return Array.from({ length: tokenizer.vocabSize }, (_, id) => {
    if (tokenizer.isSpecial(id) && !markers.has(tokenizer.tokenText(id))) return "";
    return Array.from(tokenizer.tokenBytes(id), (byte) => CHARACTER_OF_BYTE[byte]).join("");
  });
}
