/**
 * From the bytes of a request to a JSON value, within bounds that keep a hostile body from costing more than its size.
 * Knows JSON; knows nothing of which fields there should be.
 */

import { RequestError } from "../errors.ts";

const MAX_DEPTH = 64;
/** Objects and arrays; a body of nothing but `[],` would take ten times its size once parsed. */
const MAX_CONTAINERS = 100_000;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * Parses a body.
 * @throws {RequestError} `invalid_request`: not UTF-8, not JSON, not an object, too deep or too finely divided
 */
export function parseJsonBody(bytes: Uint8Array): Record<string, unknown> {
  checkStructure(bytes);
  const value = parse(decode(bytes));
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new RequestError("invalid_request", "Cannot parse the body: expected a JSON object");
  }
  return value as Record<string, unknown>;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new RequestError("invalid_request", "Cannot parse the body: it is not valid UTF-8", { cause });
  }
}

function parse(text: string): unknown {
  if (text.trim().length === 0) throw new RequestError("invalid_request", "Cannot parse the body: it is empty");
  try {
    return JSON.parse(text);
  } catch (cause) {
    // The parser's own message quotes the text, which may be a prompt: only the place is kept.
    const place = /at position \d+/.exec(cause instanceof Error ? cause.message : "")?.[0];
    throw new RequestError("invalid_request", `Cannot parse the body: it is not JSON${place ? ` (${place})` : ""}`);
  }
}

/** One pass over the bytes, before anything is allocated for them. */
function checkStructure(bytes: Uint8Array): void {
  let depth = 0;
  let containers = 0;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (inString) {
      if (byte === BACKSLASH) i++;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) {
      inString = true;
    } else if (byte === 0x5b || byte === 0x7b) {
      containers++;
      if (++depth > MAX_DEPTH || containers > MAX_CONTAINERS) {
        const bound = depth > MAX_DEPTH ? `${MAX_DEPTH} levels deep` : `${MAX_CONTAINERS} objects and arrays`;
        throw new RequestError("invalid_request", `Cannot parse the body: it is more than ${bound}`);
      }
    } else if (byte === 0x5d || byte === 0x7d) {
      depth--;
    }
  }
}
