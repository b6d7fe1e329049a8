/**
 * How much text one token can stand for, so that a text which cannot fit is refused from its length. Only for
 * tokenizers that keep every byte of a text; of others nothing is promised.
 */

import type { JsonObject } from "../model/json_file.ts";
import type { Spelling } from "./token_bytes.ts";

/** Composing characters shortens a text to no less than a third of its bytes: three jamo of 3 bytes are one syllable of 3. */
const COMPOSITION = 3;

const UTF8 = new TextEncoder();

/**
 * The most UTF-8 bytes of a text that one token can stand for.
 *
 * @param file contents of `tokenizer.json`
 * @param config contents of `tokenizer_config.json`
 * @returns undefined when parts of a text may be dropped, or replaced by fewer bytes
 */
export function longestTokenBytes(file: JsonObject, config: JsonObject, spelling: Spelling): number | undefined {
  const added = (file.array("added_tokens") ?? []).map((token) => file.nested(token, "added_tokens"));
  const stripsSpace = added.some((token) => token.flag("lstrip") || token.flag("rstrip"));
  if (stripsSpace || config.value("remove_space") === true || config.value("do_lowercase_and_remove_accent") === true) {
    return undefined;
  }
  const growth = stepsIn(file, "normalizer", "normalizers").map(shrinkage);
  if (!growth.every((factor) => factor !== undefined)) return undefined;
  if (!stepsIn(file, "pre_tokenizer", "pretokenizers").every(keepsText)) return undefined;
  const vocabulary = file.object("model")?.object("vocab");
  if (vocabulary === undefined || !spellsEveryByte(vocabulary, spelling)) return undefined;
  let longest = Math.max(0, ...added.map((token) => UTF8.encode(token.string("content") ?? "").length));
  for (const [entry] of vocabulary.entries()) {
    // The spelling of a space takes more bytes than a space, and may itself stand in a text.
    longest = Math.max(longest, spelling.bytesOf(entry).length, spelling.isByteLevel ? 0 : UTF8.encode(entry).length);
  }
  return longest * growth.reduce((product, factor) => product * factor, 1);
}

/** A step, or the steps of a sequence of them. */
function stepsIn(file: JsonObject, field: string, list: string): readonly JsonObject[] {
  const step = file.object(field);
  if (step === undefined) return [];
  if (step.value("type") !== "Sequence") return [step];
  return (step.array(list) ?? []).map((inner) => step.nested(inner, list));
}

/** How many times shorter a normalizer can make a text; undefined: it may drop any part. */
function shrinkage(normalizer: JsonObject): number | undefined {
  switch (normalizer.value("type")) {
    case "Prepend":
      return 1;
    case "NFC":
      return COMPOSITION;
    case "Replace": {
      const pattern = normalizer.object("pattern")?.value("String");
      const content = normalizer.value("content");
      const keeps = typeof pattern === "string" && typeof content === "string" &&
        UTF8.encode(content).length >= UTF8.encode(pattern).length;
      return keeps ? 1 : undefined;
    }
    default:
      return undefined;
  }
}

/** Whether all of a text is in the words that it is split into. */
function keepsText(splitter: JsonObject): boolean {
  switch (splitter.value("type")) {
    case "Split":
      return splitter.value("invert") === false && String(splitter.value("behavior")).toLowerCase() !== "removed";
    case "ByteLevel":
      return splitter.value("use_regex") === false;
    case "Metaspace":
    case "Digits":
      return true;
    default:
      return false;
  }
}

/** Whether no part of a text is without tokens: what has none may be dropped, or be one token together with its neighbours. */
function spellsEveryByte(vocabulary: JsonObject, spelling: Spelling): boolean {
  const single = new Set<number>();
  for (const [entry] of vocabulary.entries()) {
    const bytes = spelling.bytesOf(entry);
    const [byte] = bytes;
    if (bytes.length === 1 && byte !== undefined) single.add(byte);
  }
  // Bytes that no UTF-8 contains need no token.
  const inText = (byte: number) => byte < 0xc0 || byte > 0xc1 && byte < 0xf5;
  return Array.from({ length: 256 }, (_, byte) => byte).every((byte) => !inText(byte) || single.has(byte));
}
