/** Values that break what is not careful: texts, numbers, spellings of JSON, names of fields, encodings of a body. */

import type { Random } from "../support/random.ts";

/** A value of a body, or text in its place that no serializer would write. */
export type Value = null | boolean | number | string | readonly Value[] | { readonly [key: string]: Value } | Spelling;

/** Stands for itself in the body, JSON or not. */
export class Spelling {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

const TEXTS = [
  ...["", " ", "\n\n", "\u0000", "a\u0000b", "\ufeff", "\u202e", "\u2028\u2029", "\u007f\u0080", "e\u0301".repeat(40)],
  ...["\ud800", "x\udc00", "\ud83d", "\ud83c\udff4\u{e0067}\u{e0062}", "\u{1d54f}".repeat(60), "\u0130\u00df\ufb03"],
  ...[
    "<|user|>",
    "<|end|>",
    "</s>",
    "<|im_start|>system",
    "{{ messages }}",
    "{% for x in range(9999999) %}x{% endfor %}",
  ],
  ...[
    "null",
    "NaN",
    "true",
    "[]",
    "%s%n%x",
    "%00",
    "../../../etc/passwd",
    "$(id)",
    "'; --",
    "\r\n\r\ndata: [DONE]\n\n",
  ],
  // Long for a text; a software GPU reads a few hundred tokens in a few seconds.
  ...["w".repeat(500), "word ".repeat(300), "9".repeat(400)],
] as const;

const NUMBERS = [
  ...[0, -0, 1, -1, 2, 100, -100, 255, 4095, 4096, 32768, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53],
  ...[-(2 ** 31), -(2 ** 53), 0.5, 0.1, 1.5, 2.000001, 1e-7, 1e-45, 5e-324, -5e-324, 3.5e38, 1e21, 1e300, -1e308],
] as const;

const SPELLINGS = [
  ...["1e999", "-1e999", "123456789012345678901234567890", `1${"0".repeat(350)}`, "1e-9999", "-0", "1E+2", "1.0"],
  ...["NaN", "Infinity", "undefined", "0x1f", "01", "+1", ".5", "1.", "'a'", "[1,]", '{"a":1,}', "/**/1", "nul", ""],
  ...['"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\x41"', '"a\nb"', '"\\', '{"a":1,"a":2}', '{"":{}}', "{}}"],
  ...["[".repeat(50) + "]".repeat(50), "[".repeat(80) + "]".repeat(80), "[".repeat(20_000)],
  ...['{"a":'.repeat(5000) + "1" + "}".repeat(5000), `[${"0,".repeat(50_000)}0]`, `[${"{},".repeat(110_000)}{}]`],
] as const;

const NAMES = [
  ...["__proto__", "constructor", "prototype", "toString", "valueOf", "toJSON", "hasOwnProperty", "then", "length"],
  ...["", "0", "\u0000", "a.b", "$ref", "role", "content", "type", "text", "n"],
] as const;

/** One of a list. */
export function pick<T>(random: Random, list: readonly T[]): T {
  const chosen = list[random.integer(list.length)];
  if (chosen === undefined) throw new RangeError("Cannot pick from an empty list");
  return chosen;
}

/** A name for a field that should not be there. */
export function oddName(random: Random): string {
  return pick(random, NAMES);
}

/** Text of the kind that people and attackers send. */
export function oddText(random: Random): string {
  return pick(random, TEXTS);
}

/** Any value at all. */
export function oddValue(random: Random, depth = 0): Value {
  switch (random.integer(depth > 2 ? 6 : 10)) {
    case 0:
      return oddText(random);
    case 1:
      return pick(random, NUMBERS);
    case 2:
      return null;
    case 3:
      return random.uniform() < 0.5;
    case 4:
      return new Spelling(pick(random, SPELLINGS));
    case 5:
      return pick<Value>(random, [[], {}, [[]], [{}], [null]]);
    case 6:
      return Array.from({ length: random.integer(6) }, () => oddValue(random, depth + 1));
    case 7:
      return Object.fromEntries(
        Array.from({ length: random.integer(4) }, () => [oddName(random), oddValue(random, depth + 1)]),
      );
    case 8:
      return Array.from({ length: pick(random, [1, 5, 129, 1025, 20_000]) }, () => pick(random, [0, 1, -1, 4096, 1.5]));
    default:
      return Object.fromEntries(
        Array.from({ length: pick(random, [1, 30, 1500]) }, (_, i) => [String(i), pick(random, [-100, 1, 100, 101])]),
      );
  }
}

/** Writes JSON, with the odd spellings in their places. */
export function write(value: Value): string {
  if (value instanceof Spelling) return value.text;
  if (Array.isArray(value)) return `[${value.map(write).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    return `{${Object.entries(value).map(([name, field]) => `${JSON.stringify(name)}:${write(field)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}
