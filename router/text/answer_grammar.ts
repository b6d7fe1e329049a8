/**
 * What a request says about the form of its answer, in the fields of OpenAI, vLLM and llama.cpp, as one specification.
 * Knows the fields; knows nothing of tools or of how grammars are compiled.
 */

import { RequestError } from "../errors.ts";
import type { GrammarSpec } from "../grammar/grammar_spec.ts";
import { normalizeSchema } from "../grammar/json_schema.ts";
import type { GrammarBody } from "../body/schemas.ts";

/** A form, and the field that asked for it. */
export interface AnswerGrammar {
  readonly spec: GrammarSpec;
  readonly param: string;
}

type Found = readonly [param: string, make: (param: string) => GrammarSpec | undefined];

/**
 * @returns undefined when the answer is free
 * @throws {RequestError} `invalid_request` when two fields contradict each other or a schema is not valid
 */
export function answerGrammar(body: GrammarBody): AnswerGrammar | undefined {
  const asked = [...ofResponseFormat(body), ...ofStructuredOutputs(body), ...ofLlamaCpp(body)];
  const found = asked.flatMap(([param, make]) => {
    const spec = make(param);
    return spec === undefined ? [] : [{ spec, param }];
  });
  const [first, second] = found;
  if (second === undefined) return first;
  throw new RequestError(
    "invalid_request",
    `Cannot honour ${second.param}: ${first?.param} says what to answer already`,
    {
      param: second.param,
    },
  );
}

/** An object, whatever is in it. */
const ANY_OBJECT: GrammarSpec = { kind: "json", schema: { type: "object" } };

/** A schema as a specification. */
export function jsonGrammar(schema: unknown, param: string): GrammarSpec {
  return { kind: "json", schema: normalizeSchema(parsed(schema, param), param) };
}

function* ofResponseFormat({ response_format: format }: GrammarBody): Generator<Found> {
  if (format?.type === "json_object") {
    const { schema } = format;
    yield ["response_format", () => (schema ? jsonGrammar(schema, "response_format.schema") : ANY_OBJECT)];
  }
  if (format?.type === "json_schema") {
    const { json_schema: { schema } } = format;
    yield ["response_format", () => (schema ? jsonGrammar(schema, "response_format.json_schema.schema") : ANY_OBJECT)];
  }
}

function* ofStructuredOutputs(body: GrammarBody): Generator<Found> {
  const { structured_outputs: outputs } = body;
  const fields = {
    json: [["structured_outputs.json", outputs?.json], ["guided_json", body.guided_json]],
    regex: [["structured_outputs.regex", outputs?.regex], ["guided_regex", body.guided_regex]],
    choice: [["structured_outputs.choice", outputs?.choice], ["guided_choice", body.guided_choice]],
    grammar: [["structured_outputs.grammar", outputs?.grammar], ["guided_grammar", body.guided_grammar]],
  } as const;
  for (const [param, schema] of fields.json) {
    yield [param, () => (isGiven(schema) ? jsonGrammar(schema, param) : undefined)];
  }
  for (const [param, pattern] of fields.regex) {
    yield [param, () => (pattern ? { kind: "regex", pattern } : undefined)];
  }
  for (const [param, texts] of fields.choice) yield [param, () => (texts ? { kind: "choice", texts } : undefined)];
  for (const [param, grammar] of fields.grammar) {
    yield [param, () => (grammar ? { kind: "gbnf", grammar } : undefined)];
  }
  const isObject = outputs?.json_object ?? body.guided_json_object ?? false;
  yield ["structured_outputs.json_object", () => (isObject ? ANY_OBJECT : undefined)];
}

function* ofLlamaCpp({ grammar, json_schema: schema }: GrammarBody): Generator<Found> {
  yield ["grammar", () => (grammar ? { kind: "gbnf", grammar } : undefined)];
  yield ["json_schema", () => (isGiven(schema) ? jsonGrammar(schema, "json_schema") : undefined)];
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** vLLM takes a schema as a text, too. */
function parsed(schema: unknown, param: string): unknown {
  if (typeof schema !== "string") return schema;
  try {
    return JSON.parse(schema);
  } catch {
    throw new RequestError("invalid_request", "Cannot compile the schema: it is not JSON", { param });
  }
}
