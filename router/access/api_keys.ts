/**
 * The API keys that a service accepts: read from a file of `name:key` lines, kept and compared as digests only.
 */

import { createHash, timingSafeEqual } from "node:crypto";

import { UsageError } from "../errors.ts";

interface NamedDigest {
  readonly name: string;
  readonly digest: Uint8Array;
}

/** Letters of names, so that they can stand in a log line; keys are whatever a header can carry without spaces. */
const LINE = /^([\w.@-]{1,64}):([\x21-\x7e]{1,1024})$/;

/** All keys of a service. */
export class ApiKeys {
  readonly #keys: readonly NamedDigest[];

  private constructor(keys: readonly NamedDigest[]) {
    this.#keys = keys;
  }

  /**
   * Reads the text of a key file: a `name:key` on each line, empty lines and those that begin with # left out. Several
   * keys may have one name, so that a key can be replaced without an interruption.
   * @throws {UsageError} naming the line; never the key
   */
  static parse(text: string): ApiKeys {
    const keys: NamedDigest[] = [];
    for (const [i, raw] of text.split("\n").entries()) {
      const line = raw.trim();
      if (line === "" || line.startsWith("#")) continue;
      const [, name, key] = LINE.exec(line) ?? [];
      if (name === undefined || key === undefined) {
        throw new UsageError(
          `Cannot use --api-key-file: line ${i + 1} is not name:key (name of letters, digits and . _ @ -)`,
        );
      }
      const digest = digestOf(key);
      if (keys.some((other) => timingSafeEqual(other.digest, digest))) {
        throw new UsageError(`Cannot use --api-key-file: the key on line ${i + 1} was given before`);
      }
      keys.push({ name, digest });
    }
    if (keys.length === 0) throw new UsageError("Cannot use --api-key-file: it holds no key");
    return new ApiKeys(keys);
  }

  /** @throws {UsageError} when the file cannot be read, or as `parse` does */
  static async read(path: string): Promise<ApiKeys> {
    let text: string;
    try {
      text = await Deno.readTextFile(path);
    } catch (error) {
      if (error instanceof Error) throw new UsageError(`Cannot read --api-key-file: ${error.message}`);
      throw error;
    }
    return ApiKeys.parse(text);
  }

  /**
   * The name of a key, undefined for an unknown one. Always compares with all keys, and by digests, so that the time
   * taken reveals nothing of either.
   */
  nameOf(key: string): string | undefined {
    const digest = digestOf(key);
    let found: string | undefined;
    for (const known of this.#keys) if (timingSafeEqual(known.digest, digest)) found = known.name;
    return found;
  }
}

/** The key that a request carries, in OpenAI's header or Anthropic's. */
export function shownKey(headers: Headers): string | undefined {
  const [, bearer] = /^Bearer +(\S+)$/i.exec(headers.get("authorization") ?? "") ?? [];
  return bearer ?? headers.get("x-api-key") ?? undefined;
}

function digestOf(key: string): Uint8Array {
  return new Uint8Array(createHash("sha256").update(key).digest());
}
