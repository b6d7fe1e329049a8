/**
 * Which tokens may follow in a text that is valid UTF-8. The grammar library lets through bytes that form no character;
 * decoders replace each of them. Knows bytes and ids; knows nothing of grammars.
 */

/** Within a character: how many bytes are missing, and between which the next one lies. */
interface Place {
  readonly missing: number;
  readonly low: number;
  readonly high: number;
}

/** Between characters, and within one after each of the bytes that it can begin with (RFC 3629, section 4). */
const PLACES: readonly Place[] = [
  { missing: 0, low: 0, high: 0x7f },
  { missing: 1, low: 0x80, high: 0xbf },
  { missing: 2, low: 0x80, high: 0xbf },
  { missing: 3, low: 0x80, high: 0xbf },
  { missing: 2, low: 0xa0, high: 0xbf }, // After E0: less is written in two bytes.
  { missing: 2, low: 0x80, high: 0x9f }, // After ED: no surrogates.
  { missing: 3, low: 0x90, high: 0xbf }, // After F0: less is written in three bytes.
  { missing: 3, low: 0x80, high: 0x8f }, // After F4: no more than U+10FFFF.
];

const SPECIAL_LEADS: Readonly<Record<number, number>> = { 0xe0: 4, 0xed: 5, 0xf0: 6, 0xf4: 7 };

/** Index of a place; 0: between characters. */
export type Utf8Place = number;

/** The vocabulary of one model. */
export class Utf8Tokens {
  readonly #bytes: readonly (Uint8Array | undefined)[];
  readonly #masks = new Map<Utf8Place, Uint32Array>();

  /** @param bytes by id; undefined: the token is no text, and ends a character */
  constructor(bytes: readonly (Uint8Array | undefined)[]) {
    this.#bytes = bytes;
  }

  /** Where a text is after one more token; undefined: it is no longer valid. */
  after(place: Utf8Place, token: number): Utf8Place | undefined {
    const bytes = this.#bytes[token];
    if (bytes === undefined) return place === 0 ? 0 : undefined;
    let at: Utf8Place | undefined = place;
    for (let i = 0; i < bytes.length && at !== undefined; i++) at = placeAfter(at, bytes[i] ?? 0);
    return at;
  }

  /** A bit for each token that may follow, the lowest first. */
  allowed(place: Utf8Place): Uint32Array {
    const known = this.#masks.get(place);
    if (known !== undefined) return known;
    const mask = new Uint32Array(Math.ceil(this.#bytes.length / 32));
    for (let token = 0; token < this.#bytes.length; token++) {
      if (this.after(place, token) === undefined) continue;
      mask[token >> 5] = (mask[token >> 5] ?? 0) | (1 << (token & 31));
    }
    this.#masks.set(place, mask);
    return mask;
  }
}

function placeAfter(place: Utf8Place, byte: number): Utf8Place | undefined {
  const { missing, low, high } = PLACES[place] ?? { missing: 0, low: 1, high: 0 };
  if (byte >= low && byte <= high) return missing === 0 ? 0 : missing - 1;
  if (missing > 0 || byte < 0xc2 || byte > 0xf4) return undefined;
  return SPECIAL_LEADS[byte] ?? (byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3);
}
