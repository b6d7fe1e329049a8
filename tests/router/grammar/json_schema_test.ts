import assert from "node:assert/strict";

import { RequestError } from "../../../router/errors.ts";
import { normalizeSchema } from "../../../router/grammar/json_schema.ts";

const REFUSED: readonly (readonly [name: string, schema: unknown, place: RegExp])[] = [
  ["an unknown type", { properties: { a: { type: "foo" } } }, /at #\/properties\/a\/type: expected one of object/],
  ["no schema at all", 7, /at #: expected an object, 7 given/],
  [
    "an ignored keyword",
    { type: "object", properties: { a: { not: {} } } },
    /at #\/properties\/a\/not: .*not supported/,
  ],
  ["a keyword that every object has", { valueOf: 1 }, /at #\/valueOf: .*not supported/],
  ["several schemas at once", { allOf: [{ type: "string" }, { type: "integer" }] }, /at #\/allOf/],
  ["a remote reference", { $ref: "https://example.org/x" }, /at #\/\$ref: expected a reference that begins with #/],
  ["a dangling reference", { $ref: "#/$defs/x" }, /at #\/\$ref: nothing is at #\/\$defs\/x/],
  ["a reference to itself", { $ref: "#" }, /at #: no value of finite size/],
  ["endless nesting", { type: "object", properties: { a: { $ref: "#" } }, required: ["a"] }, /no value of finite size/],
  ["an empty enum", { enum: [] }, /at #\/enum: expected a list of at least one value/],
  ["an empty range", { type: "integer", minimum: 5, maximum: 3 }, /at #: minimum 5 exceeds maximum 3/],
  [
    "a range without an integer",
    { type: "integer", minimum: 1.2, maximum: 1.8 },
    /at #: no number is within its bounds/,
  ],
  ["a forbidden required property", {
    type: "object",
    properties: {},
    required: ["a"],
    additionalProperties: false,
  }, /at #: required property "a" is not allowed/],
  ["false", { properties: { a: false } }, /at #\/properties\/a: false accepts no value/],
  ["a slash in a name", { properties: { "a/b": { type: 1 } } }, /at #\/properties\/a~1b\/type/],
  ["too many items", { type: "array", minItems: 1e6 }, /minItems: expected an integer from 0 to 10000/],
  ["a huge schema", { description: "x".repeat(300_000) }, /exceed 262144/],
  ["too many schemas", { anyOf: Array.from({ length: 5001 }, () => ({})) }, /more than 5000 schemas/],
];

for (const [name, schema, message] of REFUSED) {
  Deno.test(`normalizeSchema() refuses ${name} with its place`, () => {
    assert.throws(() => normalizeSchema(schema, "response_format"), (error) => {
      assert.ok(error instanceof RequestError);
      assert.equal(error.code, "invalid_request");
      assert.equal(error.param, "response_format");
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("normalizeSchema() closes objects whose properties are listed, and drops annotations", () => {
  const given = {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Person",
    type: "object",
    properties: { name: { type: "string", description: "in full" }, extra: { type: "object" } },
    required: ["name"],
  };
  assert.deepEqual(normalizeSchema(given, "x"), {
    type: "object",
    properties: { name: { type: "string" }, extra: { type: "object" } },
    required: ["name"],
    additionalProperties: false,
  });
});

Deno.test("normalizeSchema() keeps open objects open and lists what they require", () => {
  const given = { type: "object", required: ["a"], additionalProperties: { type: "integer" } };
  assert.deepEqual(normalizeSchema(given, "x"), { ...given, properties: { a: { type: "integer" } } });
});

Deno.test("normalizeSchema() gives bounded numbers a schema of their own, and spells what the library is lax about", () => {
  const bounded = { type: ["integer", "null"], minimum: 3, description: "x" };
  assert.deepEqual(normalizeSchema(bounded, "x"), { anyOf: [{ type: "integer", minimum: 3 }, { type: ["null"] }] });
  assert.deepEqual(normalizeSchema({ type: "string", minimum: 3 }, "x"), { type: "string" });
  const address = normalizeSchema({ type: "string", format: "ipv4" }, "x") as { pattern: string };
  for (const [text, isOne] of [["10.0.255.9", true], ["1.02.3.4", false], ["1.2.3.256", false]] as const) {
    assert.equal(new RegExp(address.pattern).test(text), isOne, text);
  }
});

Deno.test("normalizeSchema() accepts recursion that can end", () => {
  const tree = {
    type: "object",
    properties: {
      children: { type: "array", items: { $ref: "#" } },
      next: { anyOf: [{ $ref: "#" }, { type: "null" }] },
    },
    required: ["children", "next"],
  };
  assert.doesNotThrow(() => normalizeSchema(tree, "x"));
});
