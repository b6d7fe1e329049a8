/**
 * Small parsers for decoded messages: each takes what a peer sent and gives back a value of its type, or throws.
 * `record<T>` must name every field of T, so a field that is added to a contract cannot be forgotten on the wire.
 */

import { ProtocolError } from "./errors.ts";

/** Reads a value of type T; `path` names it in the error. */
export type Shape<T> = (value: unknown, path: string) => T;

function wrong(path: string, expected: string, value: unknown): ProtocolError {
  const given = value === null || typeof value !== "object" ? String(value).slice(0, 40) : value.constructor?.name;
  return new ProtocolError(`Cannot read message: ${path} must be ${expected}, not ${given}`);
}

function leaf<T>(expected: string, accepts: (value: unknown) => value is T): Shape<T> {
  return (value, path) => {
    if (accepts(value)) return value;
    throw wrong(path, expected, value);
  };
}

/** A non-negative integer that a double holds exactly. */
export const count: Shape<number> = leaf(
  "a non-negative integer",
  (value): value is number => Number.isSafeInteger(value) && Number(value) >= 0,
);

/** Any number; log-probabilities may be infinite. */
export const real: Shape<number> = leaf("a number", (value) => typeof value === "number");

/** A string. */
export const text: Shape<string> = leaf("a string", (value) => typeof value === "string");

/** True or false. */
export const flag: Shape<boolean> = leaf("a boolean", (value) => typeof value === "boolean");

/** A tensor of u32. */
export const u32s: Shape<Uint32Array> = leaf("a Uint32Array", (value) => value instanceof Uint32Array);

/** A tensor of f32. */
export const f32s: Shape<Float32Array> = leaf("a Float32Array", (value) => value instanceof Float32Array);

/** One of the given strings. */
export function oneOf<const T extends string>(...choices: readonly T[]): Shape<T> {
  return (value, path) => {
    const found = choices.find((choice) => choice === value);
    if (found !== undefined) return found;
    throw wrong(path, `one of ${choices.join(", ")}`, value);
  };
}

/** A value that may be undefined; on the wire it is then absent. */
export function maybe<T>(shape: Shape<T>): Shape<T | undefined> {
  return (value, path) => value === undefined ? undefined : shape(value, path);
}

/** An array whose items all have one shape. */
export function list<T>(shape: Shape<T>): Shape<T[]> {
  return (value, path) => {
    if (Array.isArray(value)) return value.map((item, i) => shape(item, `${path}[${i}]`));
    throw wrong(path, "an array", value);
  };
}

/** An array of exactly two items. */
export function pair<A, B>(first: Shape<A>, second: Shape<B>): Shape<readonly [A, B]> {
  return (value, path) => {
    if (Array.isArray(value) && value.length === 2) {
      return [first(value[0], `${path}[0]`), second(value[1], `${path}[1]`)];
    }
    throw wrong(path, "a pair", value);
  };
}

type OptionalKey<T> = { [K in keyof T]-?: Record<never, never> extends Pick<T, K> ? K : never }[keyof T];
type RequiredShapes<T> = { readonly [K in Exclude<keyof T, OptionalKey<T>>]: Shape<T[K]> };
type OptionalShapes<T> = { readonly [K in OptionalKey<T>]-?: Shape<Exclude<T[K], undefined>> };
/** Must be there if T has optional fields. */
type OptionalArgument<T> = [OptionalKey<T>] extends [never] ? [] : [OptionalShapes<T>];

/** The fields of a plain object; every other type of value is refused. */
export function fieldsOf(value: unknown, path: string): Readonly<Record<string, unknown>> {
  const plain = typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
  if (plain) return value as Record<string, unknown>;
  throw wrong(path, "a map", value);
}

/**
 * A map with the fields of T; unknown fields are dropped.
 * @param required shapes of the fields that T always has
 * @param optional shapes of the fields that T may lack; an absent one stays absent
 */
export function record<T>(required: RequiredShapes<T>, ...[optional]: OptionalArgument<T>): Shape<T> {
  const must = Object.entries<Shape<unknown>>(required);
  const may = Object.entries<Shape<unknown>>(optional ?? {});
  return (value, path) => {
    const fields = fieldsOf(value, path);
    const result: Record<string, unknown> = {};
    for (const [name, shape] of must) result[name] = shape(fields[name], `${path}.${name}`);
    for (const [name, shape] of may) {
      if (fields[name] !== undefined) result[name] = shape(fields[name], `${path}.${name}`);
    }
    return result as T;
  };
}

/** A union of maps, distinguished by their field `kind`. */
export function union<T extends { readonly kind: string }>(
  shapes: { readonly [K in T["kind"]]: Shape<Extract<T, { readonly kind: K }>> },
): Shape<T> {
  const byKind = new Map<unknown, Shape<T>>(Object.entries<Shape<T>>(shapes));
  return (value, path) => {
    const { kind } = fieldsOf(value, path);
    const shape = byKind.get(kind);
    if (shape === undefined) throw wrong(`${path}.kind`, `one of ${[...byKind.keys()].join(", ")}`, kind);
    return shape(value, path);
  };
}
