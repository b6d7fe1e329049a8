/** Looks for a marker in a growing text. Knows text only. */

/**
 * Splits a text at the first occurrence of a marker.
 * @returns what is certainly before it, and, once it is complete, what comes after; `held` may become the marker
 */
export function splitAt(
  text: string,
  marker: string,
): { readonly before: string; readonly held: string; readonly after: string | undefined } {
  const at = text.indexOf(marker);
  if (at >= 0) return { before: text.slice(0, at), held: "", after: text.slice(at + marker.length) };
  for (let length = Math.min(marker.length - 1, text.length); length > 0; length--) {
    const start = text.length - length;
    if (marker.startsWith(text.slice(start))) {
      return { before: text.slice(0, start), held: text.slice(start), after: undefined };
    }
  }
  return { before: text, held: "", after: undefined };
}
