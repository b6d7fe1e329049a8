/**
 * Schemas of clients to schemas that the grammar library enforces completely: closed objects, local references, and only
 * keywords that it knows. What it would ignore is refused here, with its place, instead of being broken in the answer.
 */

import { messageOf } from "../../kernels/errors.ts";
import { RequestError } from "../errors.ts";
import type { JsonSchema } from "./grammar_spec.ts";
import { jsonPattern } from "./json_pattern.ts";
import { NUMBER_BOUNDS, numberRange } from "./number_range.ts";
import { checkFinite } from "./schema_finiteness.ts";

/** Schemas within a schema, itself included. */
const MAX_SCHEMAS = 5000;

/** Characters of a schema as JSON. */
const MAX_SCHEMA_CHARS = 262_144;

/** Nothing in an answer depends on these. */
const ANNOTATIONS: ReadonlySet<string> = new Set([
  ..."$schema $id $comment $anchor title description default examples example deprecated readOnly writeOnly".split(" "),
  ..."contentEncoding contentMediaType discriminator externalDocs xml nullable strict".split(" "),
]);

const TYPES: ReadonlySet<unknown> = new Set("object array string number integer boolean null".split(" "));

const FORMATS: ReadonlySet<unknown> = new Set(
  "email date time date-time duration ipv4 ipv6 hostname uuid uri uri-reference uri-template json-pointer relative-json-pointer"
    .split(" "),
);

const COUNTS = ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"] as const;
const RANGES = [["minLength", "maxLength"], ["minItems", "maxItems"], ["minProperties", "maxProperties"], [
  "minimum",
  "maximum",
]] as const;

/** Beyond it repetition is compiled into unusably large grammars. */
const MAX_COUNT = 10_000;

type Keywords = Readonly<Record<string, unknown>>;

/**
 * Checks and closes a schema.
 * @param param the request field that holds it
 * @throws {RequestError} `invalid_request` naming the place within the schema
 */
export function normalizeSchema(schema: unknown, param: string): JsonSchema {
  const text = JSON.stringify(schema) ?? "";
  if (text.length > MAX_SCHEMA_CHARS) {
    throw refusal(param, "#", `its ${text.length} characters exceed ${MAX_SCHEMA_CHARS}`);
  }
  const normalized = new Normalizer(param).schema(schema, "#");
  checkFinite(normalized, (place, why) => refusal(param, place, why));
  return normalized;
}

function refusal(param: string, place: string, why: string): RequestError {
  return new RequestError("invalid_request", `Cannot compile the schema at ${place.slice(0, 200)}: ${why}`, { param });
}

class Normalizer {
  readonly #param: string;
  #schemas = 0;

  constructor(param: string) {
    this.#param = param;
  }

  schema(value: unknown, place: string): JsonSchema {
    if (++this.#schemas > MAX_SCHEMAS) throw this.#refuse(place, `more than ${MAX_SCHEMAS} schemas`);
    if (value === true) return {};
    if (value === false) throw this.#refuse(place, "false accepts no value");
    const given = this.#object(value, place);
    const entries = Object.entries(given).filter(([keyword]) => !ANNOTATIONS.has(keyword) && !keyword.startsWith("x-"));
    const normal = Object.fromEntries(
      entries.map(([keyword, content]) => [keyword, this.#keyword(keyword, content, `${place}/${escaped(keyword)}`)]),
    );
    this.#checkRanges(normal, place);
    const whole = closed(unwrapped(normal), (name) => this.#refuse(place, `required property ${name} is not allowed`));
    return this.#numbersApart(spelled(whole), place);
  }

  #keyword(keyword: string, value: unknown, place: string): unknown {
    switch (keyword) {
      case "properties":
      case "$defs":
      case "definitions":
        return Object.fromEntries(
          Object.entries(this.#object(value, place)).map(([name, inner]) =>
            [name, this.schema(inner, `${place}/${escaped(name)}`)] as const
          ),
        );
      case "items":
        return Array.isArray(value) ? this.#list(value, place) : this.schema(value, place);
      case "additionalProperties":
        return typeof value === "boolean" ? value : this.schema(value, place);
      case "prefixItems":
      case "anyOf":
      case "oneOf":
        return this.#list(value, place);
      case "allOf":
        if (Array.isArray(value) && value.length === 1) return this.#list(value, place);
        throw this.#refuse(place, "allOf of several schemas is not supported");
      case "pattern":
        return this.#pattern(value, place);
      default:
        return this.#leaf(keyword, value, place);
    }
  }

  #pattern(value: unknown, place: string): string {
    if (typeof value !== "string") throw this.#refuse(place, "expected a regular expression");
    try {
      return jsonPattern(value);
    } catch (error) {
      throw this.#refuse(place, messageOf(error));
    }
  }

  #leaf(keyword: string, value: unknown, place: string): unknown {
    // A keyword may have the name of something that every object has.
    const isValid = Object.hasOwn(LEAVES, keyword) ? LEAVES[keyword] : undefined;
    if (isValid === undefined) {
      // An absent constraint, written out.
      if (keyword === "uniqueItems" && value === false) return undefined;
      throw this.#refuse(place, "this keyword is not supported");
    }
    const expected = isValid(value);
    if (expected === undefined) return value;
    throw this.#refuse(place, `expected ${expected}, ${JSON.stringify(value)?.slice(0, 60)} given`);
  }

  #list(value: unknown, place: string): JsonSchema[] {
    if (!Array.isArray(value) || value.length === 0) throw this.#refuse(place, "expected a list of schemas");
    return value.map((inner, i) => this.schema(inner, `${place}/${i}`));
  }

  #object(value: unknown, place: string): Keywords {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Keywords;
    throw this.#refuse(place, `expected an object, ${JSON.stringify(value)?.slice(0, 60)} given`);
  }

  #checkRanges(schema: Keywords, place: string): void {
    for (const [low, high] of RANGES) {
      const [least, most] = [schema[low], schema[high]];
      if (typeof least === "number" && typeof most === "number" && least > most) {
        throw this.#refuse(place, `${low} ${least} exceeds ${high} ${most}`);
      }
    }
  }

  /** Bounds concern numbers alone, which get a schema of their own beside what else the value may be. */
  #numbersApart(schema: Keywords, place: string): Keywords {
    const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, ...rest } = schema;
    const given = Object.entries({ minimum, maximum, exclusiveMinimum, exclusiveMaximum });
    const bounds = Object.fromEntries(given.filter(([, bound]) => bound !== undefined));
    if (Object.keys(bounds).length === 0 || UNTYPED.some((keyword) => keyword in schema)) return schema;
    const types = [schema.type ?? [...TYPES].filter((type) => type !== "integer")].flat();
    const others = types.filter((type) => type !== "number" && type !== "integer");
    if (others.length === types.length) return rest;
    const type = types.includes("number") ? "number" : "integer";
    try {
      numberRange(bounds, type);
    } catch (error) {
      throw this.#refuse(place, messageOf(error));
    }
    const number = { type, ...bounds };
    return others.length === 0 ? number : { anyOf: [number, { ...rest, type: others }] };
  }

  #refuse(place: string, why: string): RequestError {
    return refusal(this.#param, place, why);
  }
}

/** What a keyword's value must be; undefined: it is. */
const LEAVES: Readonly<Record<string, (value: unknown) => string | undefined>> = {
  type: (value) => {
    const types = Array.isArray(value) ? value : [value];
    return types.length > 0 && types.every((type) => TYPES.has(type)) ? undefined : `one of ${[...TYPES].join(", ")}`;
  },
  enum: (value) => Array.isArray(value) && value.length > 0 ? undefined : "a list of at least one value",
  const: () => undefined,
  required: (value) =>
    Array.isArray(value) && value.every((name) => typeof name === "string") ? undefined : "a list of names",
  format: (value) => FORMATS.has(value) ? undefined : `one of ${[...FORMATS].join(", ")}`,
  $ref: (value) =>
    typeof value === "string" && (value === "#" || value.startsWith("#/"))
      ? undefined
      : "a reference that begins with #",
  uniqueItems: (value) => value === false ? undefined : "false: unique items are not supported",
  ...Object.fromEntries(COUNTS.map((keyword) => [
    keyword,
    (value: unknown) =>
      Number.isInteger(value) && Number(value) >= 0 && Number(value) <= MAX_COUNT
        ? undefined
        : `an integer from 0 to ${MAX_COUNT}`,
  ])),
  ...Object.fromEntries(NUMBER_BOUNDS.map((keyword) => [
    keyword,
    (value: unknown) => typeof value === "number" ? undefined : "a number",
  ])),
};

/** Keywords beside which a type says nothing. */
const UNTYPED = ["enum", "const", "$ref", "anyOf", "oneOf"] as const;

/** A byte of an address without leading zeros, which the library would let through. */
const BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

function spelled(schema: Keywords): Keywords {
  if (schema.format !== "ipv4" || schema.pattern !== undefined) return schema;
  const { format: _, ...rest } = schema;
  return { ...rest, pattern: `^(${BYTE}\\.){3}${BYTE}$` };
}

/** `allOf` with one schema says the same as the schema. */
function unwrapped({ allOf, ...rest }: Keywords): Keywords {
  return Array.isArray(allOf) ? { ...allOf[0], ...rest } : rest;
}

/** Objects whose properties are listed have no others, unless the schema says so: what OpenAI's strict mode demands. */
function closed(schema: Keywords, missing: (name: string) => RequestError): Keywords {
  const { properties, required, additionalProperties } = schema;
  const defined = Object.fromEntries(Object.entries(schema).filter(([, value]) => value !== undefined));
  if (properties === undefined && !Array.isArray(required)) return defined;
  const listed = properties as Keywords ?? {};
  const absent = (Array.isArray(required) ? required : []).filter((name: string) => !Object.hasOwn(listed, name));
  const isClosed = additionalProperties === false || (additionalProperties === undefined && properties !== undefined);
  const [first] = absent;
  if (first !== undefined && isClosed) throw missing(JSON.stringify(first).slice(0, 60));
  const others = Object.fromEntries(
    absent.map((name: string) => [name, typeof additionalProperties === "object" ? additionalProperties : {}]),
  );
  return {
    ...defined,
    properties: { ...listed, ...others },
    additionalProperties: additionalProperties ?? properties === undefined,
  };
}

/** As in a JSON pointer. */
function escaped(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}
