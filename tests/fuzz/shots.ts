/**
 * Requests made from the service's own OpenAPI document, then changed by value, by structure and by byte. A shot is a
 * function of document, seed and index: any of them can be fired again.
 */

import { Random } from "../support/random.ts";
import { resolved, type Schema, type Schemas, schemaValue } from "./schema_values.ts";
import { oddName, oddValue, pick, Spelling, type Value, write } from "./values.ts";

/** A request to fire. */
export interface Shot {
  readonly index: number;
  readonly path: string;
  readonly body: Uint8Array<ArrayBuffer>;
  readonly headers: Readonly<Record<string, string>>;
  /** What was changed, in words. */
  readonly how: string;
}

/** The part of an OpenAPI document that shots are made from. */
export interface ApiDocument {
  readonly paths: Readonly<Record<string, { readonly post?: Operation } | undefined>>;
  readonly components?: { readonly schemas?: Schemas };
}

interface Operation {
  readonly requestBody?: { readonly content?: Readonly<Record<string, { readonly schema?: Schema } | undefined>> };
}

/** Occurs in prompts, and must not occur in errors. */
export const SECRET = "SECRETzqx";

const KINDS: Readonly<Record<string, (random: Random, model: string) => Record<string, Value>>> = {
  "/v1/chat/completions": () => ({ messages: [{ role: "user", content: `Tell me of the sea ${SECRET}` }] }),
  "/v1/responses": () => ({ input: `Tell me of the sea ${SECRET}` }),
  "/v1/messages": (_, model) => ({
    model,
    messages: [{ role: "user", content: `Tell me of the sea ${SECRET}` }],
    "max_tokens": 4,
  }),
  "/v1/messages/count_tokens": (_, model) => ({
    model,
    messages: [{ role: "user", content: `Tell me of the sea ${SECRET}` }],
  }),
  "/v1/completions": (random) => ({
    prompt: pick<Value>(random, [`Once ${SECRET}`, [1, 2, 3], ["a", "b"], [[1, 2], [3]]]),
    logprobs: pick<Value>(random, [null, 0, 5]),
  }),
  "/tokenize": (random) =>
    pick<Record<string, Value>>(random, [
      { prompt: `hello ${SECRET}` },
      { content: "hi", "with_pieces": true },
      { messages: [{ role: "user", content: "hi" }], "return_token_strs": true },
    ]),
  "/detokenize": (random) => ({ tokens: Array.from({ length: random.integer(20) }, () => random.integer(5000)) }),
};

/** Makes shots at all routes of a document that take a JSON body. */
export class Shots {
  readonly #routes: readonly { readonly path: string; readonly schema: Schema }[];
  readonly #schemas: Schemas;
  readonly #seed: number;
  readonly #model: string;

  /** @param model that the service answers for */
  constructor(document: ApiDocument, seed: number, model: string) {
    this.#schemas = document.components?.schemas ?? {};
    this.#seed = seed;
    this.#model = model;
    this.#routes = Object.entries(document.paths).flatMap(([path, operations]) => {
      const schema = operations?.post?.requestBody?.content?.["application/json"]?.schema;
      return schema === undefined ? [] : [{ path, schema: resolved(schema, this.#schemas) }];
    });
    if (this.#routes.length === 0) throw new RangeError("Cannot fuzz: the document has no route with a JSON body");
  }

  /** The paths that are fired at. */
  get paths(): readonly string[] {
    return this.#routes.map(({ path }) => path);
  }

  /** The shot of an index, the same each time. */
  at(index: number): Shot {
    const random = new Random(Math.imul(this.#seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b));
    const { path, schema } = pick(random, this.#routes);
    const { value, how } = this.#body(random, path, schema);
    let text = write(value);
    const changes = [how];
    if (random.uniform() < 0.04 && text.endsWith("}")) {
      const name = pick(random, this.#names(schema));
      text = `${text.slice(0, -1)},${JSON.stringify(name)}:${write(oddValue(random))}}`;
      changes.push(`${name} twice`);
    }
    const { body, headers, change } = packed(random, text);
    if (change !== undefined) changes.push(change);
    return { index, path, body, headers, how: changes.join(", ") };
  }

  #names(schema: Schema): readonly string[] {
    return Object.keys(schema.properties ?? { a: {} });
  }

  #body(random: Random, path: string, schema: Schema): { readonly value: Value; readonly how: string } {
    const plain = KINDS[path]?.(random, this.#model);
    const sound = { ...plain, stream: random.uniform() < 0.3, temperature: 0 };
    const names = this.#names(schema);
    const kind = random.integer(12);
    if (plain === undefined || kind < 2) {
      return { value: affordable(random, schemaValue(random, schema, this.#schemas)), how: "by schema" };
    }
    if (kind < 5) {
      const place = pick(random, placesIn(sound));
      return { value: affordable(random, replaced(sound, place, oddValue(random))), how: `odd ${place.join(".")}` };
    }
    if (kind === 5) {
      const name = oddName(random);
      return { value: affordable(random, replaced(sound, [name], oddValue(random))), how: `field "${name}"` };
    }
    let value: Value = sound;
    const changed = Array.from({ length: kind < 9 ? 1 : 2 }, () => pick(random, names));
    for (const name of changed) {
      const isOdd = random.uniform() < 0.6;
      const field = isOdd ? oddValue(random) : schemaValue(random, schema.properties?.[name], this.#schemas);
      value = replaced(value, [name], field);
    }
    return { value: affordable(random, value), how: `field ${changed.join(" and ")}` };
  }
}

type Place = readonly (string | number)[];

function isRecord(value: Value): value is { readonly [key: string]: Value } {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Spelling);
}

/** The value itself, and all places within. */
function placesIn(value: Value, at: Place = []): readonly Place[] {
  if (Array.isArray(value)) return [at, ...value.slice(0, 20).flatMap((item, i) => placesIn(item, [...at, i]))];
  if (!isRecord(value)) return [at];
  return [at, ...Object.entries(value).flatMap(([name, field]) => placesIn(field, [...at, name]))];
}

function replaced(value: Value, [first, ...rest]: Place, by: Value): Value {
  if (first === undefined) return by;
  if (Array.isArray(value)) return value.map((item, i) => i === first ? replaced(item, rest, by) : item);
  if (!isRecord(value)) return value;
  // Own properties, whatever they are called: an assignment to `__proto__` would set no field.
  return Object.fromEntries([
    ...Object.entries(value).filter(([name]) => name !== first),
    [first, replaced(value[first] ?? null, rest, by)],
  ]);
}

/** Keeps what is valid small: a thousand tokens for each of 128 choices would be a load test. */
function affordable(random: Random, value: Value): Value {
  if (!isRecord(value)) return value;
  const bounded = Object.entries(value).map(([name, field]): [string, Value] => {
    const isCount = typeof field === "number" && Number.isInteger(field) && field > 0;
    if (isCount && /^(max_.*tokens|min_tokens)$/.test(name)) return [name, Math.min(field, 3)];
    if (isCount && /^(n|best_of)$/.test(name)) return [name, Math.min(field, 2)];
    return [name, field];
  });
  const says = bounded.some(([name, field]) => /^max_.*tokens$/.test(name) && field !== null);
  return Object.fromEntries(says ? bounded : [...bounded, ["max_tokens", 1 + random.integer(3)]]);
}

interface Packed {
  readonly body: Uint8Array<ArrayBuffer>;
  readonly headers: Readonly<Record<string, string>>;
  readonly change?: string;
}

const TYPES = ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "a/b", ""];

function packed(random: Random, text: string): Packed {
  const body = new TextEncoder().encode(text);
  const headers = { "content-type": "application/json" };
  const at = random.integer(body.length + 1);
  const inserted = (bytes: readonly number[], change: string): Packed => ({
    body: Uint8Array.from([...body.subarray(0, at), ...bytes, ...body.subarray(at)]),
    headers,
    change: `${change} at ${at}`,
  });
  switch (random.integer(40)) {
    case 0:
      return inserted([random.integer(256)], "a byte");
    case 1:
      return { body: body.slice(0, at), headers, change: `cut at ${at}` };
    case 2:
      return inserted(pick(random, [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf5, 0x80], [0xe2, 0x82]]), "no UTF-8");
    case 3:
      return { body: Uint8Array.from([0xef, 0xbb, 0xbf, ...body]), headers, change: "byte order mark" };
    case 4:
      return { body: utf16(text), headers, change: "UTF-16" };
    case 5:
      return { body, headers: { ...headers, "content-encoding": "gzip" }, change: "not gzip" };
    case 6:
      return { body, headers: { "content-type": pick(random, TYPES) }, change: "another type" };
    case 7:
      return { body: Uint8Array.from([...body, 0, 0]), headers, change: "zeros after it" };
    case 8:
      return { body: Uint8Array.from([...body, 0x7b, 0x7d]), headers, change: "{} after it" };
    case 9: {
      const ids = ["a", "b".repeat(300), "x y", "00-zz"];
      const traced = { "x-request-id": pick(random, ids), "traceparent": pick(random, ids) };
      return { body, headers: { ...headers, ...traced }, change: "odd headers" };
    }
    default:
      return { body, headers };
  }
}

function utf16(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Uint16Array.from({ length: text.length }, (_, i) => text.charCodeAt(i)).buffer);
}
