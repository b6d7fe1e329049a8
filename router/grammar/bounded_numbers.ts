/**
 * Numbers with bounds, on their way around the library's conversion of schemas to grammars: marks stand for them in the
 * schema, and their own expressions for the marks in the grammar.
 */

import type { JsonSchema } from "./grammar_spec.ts";
import { NUMBER_BOUNDS, type NumberBounds, numberRange } from "./number_range.ts";

const IN_MAPS: ReadonlySet<string> = new Set(["properties", "$defs", "definitions"]);
const IN_LISTS: ReadonlySet<string> = new Set(["prefixItems", "anyOf", "oneOf", "allOf", "items"]);
const ALONE: ReadonlySet<string> = new Set(["items", "additionalProperties"]);

/** Those of one schema. */
export class BoundedNumbers {
  /** No schema of a client has it. */
  readonly #mark = `number ${crypto.randomUUID()}`;
  readonly #expressions: string[] = [];

  /** A schema with marks for such numbers. */
  marked(schema: JsonSchema): JsonSchema {
    return this.#marked(schema) as JsonSchema;
  }

  /** The grammar that the library made of it, without marks. */
  filled(grammar: string): string {
    return this.#expressions.reduce(
      (filled, expression, i) => filled.replaceAll(`"\\"${this.#mark} ${i}\\""`, `(${expression})`),
      grammar,
    );
  }

  #marked(value: unknown): unknown {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
    const schema = value as Readonly<Record<string, unknown>>;
    const { type } = schema;
    if ((type === "number" || type === "integer") && NUMBER_BOUNDS.some((keyword) => keyword in schema)) {
      this.#expressions.push(numberRange(schema as NumberBounds, type));
      return { const: `${this.#mark} ${this.#expressions.length - 1}` };
    }
    return Object.fromEntries(
      Object.entries(schema).map(([keyword, content]) => [keyword, this.#within(keyword, content)]),
    );
  }

  #within(keyword: string, content: unknown): unknown {
    if (IN_LISTS.has(keyword) && Array.isArray(content)) return content.map((inner) => this.#marked(inner));
    if (ALONE.has(keyword)) return this.#marked(content);
    if (!IN_MAPS.has(keyword)) return content;
    return Object.fromEntries(
      Object.entries(content as Record<string, unknown>).map(([name, inner]) => [name, this.#marked(inner)]),
    );
  }
}
