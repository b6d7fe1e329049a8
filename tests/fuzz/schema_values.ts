/** Values that a JSON schema of the OpenAPI document allows, edges first. Knows schemas; knows nothing of HTTP. */

import type { Random } from "../support/random.ts";
import { oddText, pick, type Value } from "./values.ts";

/** What of JSON schema the document uses. */
export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly const?: Value;
  readonly enum?: readonly Value[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly maxLength?: number;
}

/** The named schemas of a document. */
export type Schemas = Readonly<Record<string, Schema>>;

/** A schema, or the one that it refers to. */
export function resolved(schema: Schema | undefined, schemas: Schemas): Schema {
  const name = schema?.$ref?.split("/").at(-1);
  return (name === undefined ? schema : schemas[name]) ?? {};
}

/** A value that the schema allows, or nearly. */
export function schemaValue(random: Random, given: Schema | undefined, schemas: Schemas, depth = 0): Value {
  const schema = resolved(given, schemas);
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return pick(random, schema.enum);
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choices !== undefined) return schemaValue(random, pick(random, choices), schemas, depth);
  const type = typeof schema.type === "string" ? schema.type : schema.type && pick(random, schema.type);
  switch (type) {
    case "null":
      return null;
    case "boolean":
      return random.uniform() < 0.5;
    case "integer":
      return Math.round(numberWithin(random, schema));
    case "number":
      return numberWithin(random, schema);
    case "string":
      return pick(random, ["hello", "The sea was calm", "Ω≈ç 漢字", oddText(random)]).slice(0, schema.maxLength);
    case "array": {
      const length = Math.min(schema.maxItems ?? Infinity, (schema.minItems ?? 0) + random.integer(3));
      return Array.from({ length }, () => schemaValue(random, schema.items, schemas, depth + 1));
    }
    case "object":
      return objectOf(random, schema, schemas, depth);
    default:
      return pick<Value>(random, [null, 1, "x", {}, []]);
  }
}

function objectOf(random: Random, schema: Schema, schemas: Schemas, depth: number): Value {
  const fields = Object.entries(schema.properties ?? {}).filter(([name]) =>
    schema.required?.includes(name) || random.uniform() < (depth === 0 ? 0.2 : 0.5)
  );
  return Object.fromEntries(fields.map(([name, field]) => [name, schemaValue(random, field, schemas, depth + 1)]));
}

function numberWithin(random: Random, { minimum, maximum, exclusiveMinimum }: Schema): number {
  const low = Math.max(minimum ?? exclusiveMinimum ?? -1000, -(2 ** 40));
  const high = Math.min(maximum ?? low + 1000, 2 ** 40);
  return pick(random, [low, high, low + random.uniform(), low + random.uniform() * (high - low)]);
}
