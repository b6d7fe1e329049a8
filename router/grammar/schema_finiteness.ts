/**
 * Whether a schema has a value that ends: `{"a": {"a": …}}` with a required `a` has none, and an answer to it would never
 * be complete. Knows references and required parts; expects a normalized schema.
 */

import type { RequestError } from "../errors.ts";
import type { JsonSchema } from "./grammar_spec.ts";

type Keywords = Readonly<Record<string, unknown>>;

/**
 * @param refuse makes the error for a place
 * @throws {RequestError} for references that lead nowhere, and for schemas without a finite value
 */
export function checkFinite(root: JsonSchema, refuse: (place: string, why: string) => RequestError): void {
  const targets = new Map<string, JsonSchema>();
  collect(root, "#", (place, reference) => {
    const target = resolve(root, reference);
    if (target === undefined) throw refuse(`${place}/$ref`, `nothing is at ${reference.slice(0, 100)}`);
    targets.set(reference, target);
  });
  // The least fixed point: a reference counts as finite once all that it needs does.
  const finite = new Set<string>();
  for (let grown = true; grown;) {
    grown = false;
    for (const [reference, target] of targets) {
      if (finite.has(reference) || !isFinite(target, finite)) continue;
      finite.add(reference);
      grown = true;
    }
  }
  if (!isFinite(root, finite)) throw refuse("#", "no value of finite size satisfies it");
}

function isFinite(schema: JsonSchema, finite: ReadonlySet<string>): boolean {
  if (typeof schema === "boolean") return true;
  const { $ref, anyOf, oneOf, properties, required, items, prefixItems, minItems } = schema;
  if (typeof $ref === "string") return finite.has($ref);
  if ("enum" in schema || "const" in schema) return true;
  const options = (anyOf ?? oneOf) as readonly JsonSchema[] | undefined;
  if (options !== undefined) return options.some((option) => isFinite(option, finite));
  const types = [schema.type].flat();
  // Of several types, one that has no parts is always finite.
  if (types.some((type) => type !== undefined && type !== "object" && type !== "array")) return true;
  const needed = [
    ...(required as readonly string[] ?? []).map((name) => (properties as Readonly<Record<string, JsonSchema>>)[name]),
    ...(prefixItems as readonly JsonSchema[] ?? []),
    ...(typeof minItems === "number" && minItems > 0 && !Array.isArray(items) ? [items as JsonSchema | undefined] : []),
  ];
  return needed.every((inner) => inner === undefined || isFinite(inner, finite));
}

function collect(value: unknown, place: string, found: (place: string, reference: string) => void): void {
  if (typeof value !== "object" || value === null) return;
  if (Array.isArray(value)) return value.forEach((inner, i) => collect(inner, `${place}/${i}`, found));
  for (const [key, inner] of Object.entries(value as Keywords)) {
    if (key === "$ref" && typeof inner === "string") found(place, inner);
    else if (key !== "enum" && key !== "const") collect(inner, `${place}/${key}`, found);
  }
}

function resolve(root: JsonSchema, reference: string): JsonSchema | undefined {
  let at: unknown = root;
  for (const part of reference.split("/").slice(1)) {
    const name = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, name)) return undefined;
    at = (at as Keywords)[name];
  }
  return typeof at === "object" && at !== null ? at as JsonSchema : undefined;
}
