/**
 * Patterns for the text of JSON strings: the grammar library applies them to the characters between the quotes, where a
 * quote, a backslash and control characters must not stand by themselves. Knows regular expressions as JSON Schema has them.
 */

/** What may not stand in a JSON string unescaped. */
const ESCAPED = String.raw`"\\\x00-\x1f`;

/** Shorthands that would match such characters: outside a class, and within one. */
const SHORTHANDS: Readonly<Record<string, readonly [outside: string, inside: string | undefined]>> = {
  s: [" ", " "],
  S: [`[^ ${ESCAPED}]`, undefined],
  D: [`[^0-9${ESCAPED}]`, undefined],
  W: [`[^a-zA-Z0-9_${ESCAPED}]`, undefined],
};

/** Escapes of characters that JSON writes as an escape itself. */
const UNWRITABLE: ReadonlySet<string> = new Set(["n", "r", "t", "f", "v", "b", "\\", '"', "0"]);

/**
 * The pattern, kept from matching what JSON must escape.
 * @throws {SyntaxError} with a reason that follows "Cannot …: ", when it asks for such a character
 */
export function jsonPattern(pattern: string): string {
  let safe = "";
  let inClass = false;
  for (let i = 0; i < pattern.length; i++) {
    const character = pattern.charAt(i);
    if (character === "\\") {
      safe += escape(pattern.charAt(++i), inClass);
    } else if (character === '"' || character < " ") {
      throw new SyntaxError("a quote or a control character in a pattern is not supported");
    } else if (inClass) {
      inClass = character !== "]";
      safe += character;
    } else if (character === "[") {
      inClass = true;
      const isNegated = pattern.charAt(i + 1) === "^";
      if (isNegated) i++;
      safe += isNegated ? `[^${ESCAPED}` : "[";
    } else safe += character === "." ? `[^${ESCAPED}]` : character;
  }
  return safe;
}

function escape(letter: string, inClass: boolean): string {
  if (UNWRITABLE.has(letter)) throw new SyntaxError(`\\${letter} in a pattern is not supported`);
  const shorthand = SHORTHANDS[letter];
  const replaced = shorthand === undefined ? `\\${letter}` : shorthand[inClass ? 1 : 0];
  if (replaced === undefined) throw new SyntaxError(`\\${letter} in a class of characters is not supported`);
  return replaced;
}
