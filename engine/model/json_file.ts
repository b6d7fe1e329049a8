/**
 * JSON files of a model directory, read field by field: each field is checked when it is taken, and every error names
 * the file, the field, what was expected and what was found. Knows JSON and paths; knows nothing of models.
 */

import { messageOf } from "../../kernels/errors.ts";
import { EngineError } from "../errors.ts";
import { readModelFile } from "./model_file.ts";

/** Whole numbers from `min` to `max`, both included. */
export interface IntegerBounds {
  readonly min: number;
  readonly max: number;
}

/** Real numbers above `above` and up to `max`. */
export interface NumberBounds {
  readonly above: number;
  readonly max: number;
}

/** Far above any configuration that exists; what is parsed takes several times its bytes. */
const MAX_JSON_BYTES = 16 << 20;

/** How a value looks in a message: its JSON, cut short. */
export function shown(value: unknown): string {
  const text = value === undefined ? "nothing" : JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/** A JSON object whose fields are not trusted. `null` counts as absent, as it does in Hugging Face files. */
export class JsonObject {
  /** Where it comes from, for messages: a path, or a path and a field. */
  readonly source: string;
  readonly #fields: ReadonlyMap<string, unknown>;

  /** @throws {EngineError} `invalid_model` when `value` is not an object */
  constructor(value: unknown, source: string) {
    this.source = source;
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new EngineError("invalid_model", `Cannot read ${source}: expected a JSON object, given ${shown(value)}`);
    }
    this.#fields = new Map(Object.entries(value));
  }

  /** @throws {EngineError} `invalid_model` when the bytes are not UTF-8, not JSON or not an object */
  static parse(bytes: Uint8Array, source: string): JsonObject {
    let value: unknown;
    try {
      value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch (cause) {
      const reason = messageOf(cause);
      throw new EngineError("invalid_model", `Cannot read ${source}: expected a JSON object: ${reason}`, { cause });
    }
    return new JsonObject(value, source);
  }

  /**
   * @param maxBytes larger files are refused unread. @default 16 MiB
   * @throws {EngineError} `invalid_model` when the file is missing, no file, too large or not a JSON object
   */
  static async read(path: string, maxBytes = MAX_JSON_BYTES): Promise<JsonObject> {
    return JsonObject.parse(await readModelFile(path, maxBytes), path);
  }

  /** All fields, as they are in the file. */
  entries(): IterableIterator<[string, unknown]> {
    return this.#fields.entries();
  }

  /** The unchecked value of a field; undefined when it is absent or null. */
  value(field: string): unknown {
    return this.#fields.get(field) ?? undefined;
  }

  /** The error for a field that is not what it should be. */
  invalid(field: string, expected: string): EngineError {
    return new EngineError(
      "invalid_model",
      `Cannot read ${this.source}: ${field} must be ${expected}, given ${shown(this.value(field))}`,
    );
  }

  /** @param fallback taken when the field is absent; without one the field is required */
  integer(field: string, { min, max }: IntegerBounds, fallback?: number): number {
    const value = this.value(field) ?? fallback;
    if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max) {
      throw this.invalid(field, `an integer from ${min} to ${max}`);
    }
    return value;
  }

  /** @param fallback taken when the field is absent; without one the field is required */
  number(field: string, { above, max }: NumberBounds, fallback?: number): number {
    const value = this.value(field) ?? fallback;
    if (typeof value !== "number" || !(value > above) || value > max) {
      throw this.invalid(field, `a number above ${above} and at most ${max}`);
    }
    return value;
  }

  /** Whether a switch is on. @param fallback taken when the field is absent. @default off */
  flag(field: string, fallback = false): boolean {
    const value = this.value(field) ?? fallback;
    if (typeof value !== "boolean") throw this.invalid(field, "true or false");
    return value;
  }

  /** @returns undefined when the field is absent */
  string(field: string): string | undefined {
    const value = this.value(field);
    if (value !== undefined && typeof value !== "string") throw this.invalid(field, "a string");
    return value;
  }

  /** @returns undefined when the field is absent */
  array(field: string): readonly unknown[] | undefined {
    const value = this.value(field);
    if (value !== undefined && !Array.isArray(value)) throw this.invalid(field, "a list");
    return value;
  }

  /** @returns undefined when the field is absent */
  object(field: string): JsonObject | undefined {
    const value = this.value(field);
    return value === undefined ? undefined : this.nested(value, field);
  }

  /** An object found inside `field`, e.g. an element of a list. */
  nested(value: unknown, field: string): JsonObject {
    return new JsonObject(value, `${this.source}, ${field}`);
  }
}
