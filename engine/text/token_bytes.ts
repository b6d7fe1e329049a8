/**
 * What the entries of a vocabulary stand for: bytes. Two spellings exist, byte-level (every byte is a printable
 * character) and sentence pieces (▁ for a space, `<0xAB>` for a byte). Knows spellings; knows nothing of ids or files.
 */

import { EngineError } from "../errors.ts";
import { type JsonObject, shown } from "../model/json_file.ts";

/** How a vocabulary spells bytes. */
export interface Spelling {
  /** The bytes of a vocabulary entry. */
  bytesOf(entry: string): Uint8Array<ArrayBuffer>;
  /** Whether every entry is its bytes, one printable character each. */
  readonly isByteLevel: boolean;
  /** Whether a space at the very start of a decoded text is dropped. */
  readonly dropsFirstSpace: boolean;
}

const UTF8 = new TextEncoder();

/** The bytes that stand for themselves in the byte-level spelling, both ends included: printable and not a space. */
const PRINTABLE = [[0x21, 0x7e], [0xa1, 0xac], [0xae, 0xff]] as const;

/** Character → byte: the other bytes take the characters from U+0100 on, in ascending order. */
const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = new Map((() => {
  const isPrintable = (byte: number) => PRINTABLE.some(([first, last]) => byte >= first && byte <= last);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const hidden = bytes.filter((byte) => !isPrintable(byte));
  return bytes.map((byte) => {
    const code = isPrintable(byte) ? byte : 0x100 + hidden.indexOf(byte);
    return [String.fromCharCode(code), byte] as const;
  });
})());

const BYTE_LEVEL: Spelling = {
  isByteLevel: true,
  dropsFirstSpace: false,
  bytesOf(entry) {
    const bytes: number[] = [];
    for (const character of entry) {
      const byte = BYTE_OF_CHARACTER.get(character);
      // Not spelled in bytes at all: an entry that was added as plain text.
      if (byte === undefined) return UTF8.encode(entry);
      bytes.push(byte);
    }
    return Uint8Array.from(bytes);
  },
};

function sentencePieceBytes(entry: string): Uint8Array<ArrayBuffer> {
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(entry)?.[1];
  return byte === undefined ? UTF8.encode(entry.replaceAll("▁", " ")) : Uint8Array.of(parseInt(byte, 16));
}

/**
 * Finds the spelling of a vocabulary from the decoder that `tokenizer.json` asks for.
 *
 * @param file the whole `tokenizer.json`
 * @throws {EngineError} `unsupported_model` when it is neither of the two
 */
export function spellingOf(file: JsonObject): Spelling {
  const decoder = file.object("decoder");
  const steps = decoder === undefined ? [] : [
    decoder,
    ...(decoder.array("decoders") ?? []).map((step) => file.nested(step, "decoder")),
  ];
  const types = steps.map((step) => step.string("type"));
  if (types.includes("ByteLevel")) return BYTE_LEVEL;
  if (types.includes("ByteFallback") || types.includes("Metaspace")) {
    const dropsFirstSpace = steps.some((step) =>
      step.value("type") === "Strip" && step.value("start") === 1 ||
      step.value("type") === "Metaspace" && step.value("prepend_scheme") !== "never"
    );
    return { isByteLevel: false, bytesOf: sentencePieceBytes, dropsFirstSpace };
  }
  throw new EngineError(
    "unsupported_model",
    `Cannot load ${file.source}: decoder must contain ByteLevel, ByteFallback or Metaspace, given ${shown(types)}`,
  );
}
