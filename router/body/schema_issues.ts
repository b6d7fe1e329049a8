/**
 * Turns the schema library's issues into one sentence of the service's form: field, bound, given value.
 * Knows its issue codes; quotes short values only, never a prompt.
 */

import type { z } from "@hono/zod-openapi";

import { RequestError } from "../errors.ts";

type Issue = z.core.$ZodIssue;

const MAX_QUOTED_CHARS = 40;

/** The first issue as an error; the others usually follow from it. */
export function describeIssues(issues: readonly Issue[]): RequestError {
  const issue = issues[0];
  if (issue === undefined) return new RequestError("invalid_request", "Cannot accept the request: it is not valid");
  const { path, expected, input } = resolve(issue, issue.path);
  const field = path.length === 0 ? undefined : pathText(path);
  const place = field === undefined ? "" : `${field}: `;
  return new RequestError(
    "invalid_request",
    `Cannot accept the request: ${place}${expected}, ${quote(input)} given`,
    field === undefined ? {} : { param: field },
  );
}

interface Complaint {
  readonly path: readonly PropertyKey[];
  readonly expected: string;
  readonly input: unknown;
}

/** Of a union, the member that got furthest is what the client meant; if none got in, all are named. */
function resolve(issue: Issue, path: readonly PropertyKey[]): Complaint {
  if (issue.code !== "invalid_union") return { path, expected: expectation(issue), input: issue.input };
  // A union discriminated by one field, whose value is none of them; the path ends with that field.
  const { options, discriminator } = issue as { options?: readonly unknown[]; discriminator?: string };
  if (options !== undefined && discriminator !== undefined) {
    const { [discriminator]: input } = Object(issue.input);
    return { path, expected: `expected ${options.map((option) => JSON.stringify(option)).join(" or ")}`, input };
  }
  const firsts = issue.errors.flatMap((errors) => errors.slice(0, 1));
  const meant = firsts.find((first) => first.path.length > 0 || !KINDS.includes(first.code));
  if (meant !== undefined) return resolve(meant, [...path, ...meant.path]);
  return { path, expected: `expected ${firsts.map((first) => kindOf(first)).join(" or ")}`, input: issue.input };
}

/** Issues that say only that a value does not belong to this member. */
const KINDS: readonly Issue["code"][] = ["invalid_type", "invalid_value"];

function kindOf(issue: Issue): string {
  if (issue.code === "invalid_type") return withArticle(issue.expected);
  return issue.code === "invalid_value"
    ? issue.values.map((value) => JSON.stringify(value)).join(" or ")
    : "another value";
}

function expectation(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return issue.expected === "nonoptional" ? "expected a value" : `expected ${withArticle(issue.expected)}`;
    case "too_small":
      return `expected ${issue.inclusive ? "at least" : "more than"} ${amount(issue.minimum, issue.origin)}`;
    case "too_big":
      return `expected ${issue.inclusive ? "at most" : "less than"} ${amount(issue.maximum, issue.origin)}`;
    case "invalid_value":
      return `expected ${issue.values.map((value) => JSON.stringify(value)).join(" or ")}`;
    default:
      return issue.message;
  }
}

function withArticle(kind: string): string {
  const name = kind === "int" ? "integer" : kind;
  return `${/^[aeiou]/.test(name) ? "an" : "a"} ${name}`;
}

/** A bound with the unit of what it bounds. */
function amount(bound: number | bigint, origin: string): string {
  if (origin !== "string" && origin !== "array") return String(bound);
  const unit = origin === "string" ? "character" : "element";
  return `${bound} ${unit}${Number(bound) === 1 ? "" : "s"}`;
}

function pathText(path: readonly PropertyKey[]): string {
  return path.map((key, i) => {
    if (typeof key === "number") return `[${key}]`;
    // A key of the client's own making may be a text of any length.
    const name = String(key).slice(0, MAX_QUOTED_CHARS);
    return i === 0 ? name : `.${name}`;
  }).join("");
}

function quote(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null || typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value === "string") {
    return value.length <= MAX_QUOTED_CHARS ? JSON.stringify(value) : `a string of ${value.length} characters`;
  }
  return Array.isArray(value) ? `an array of ${value.length}` : "an object";
}
