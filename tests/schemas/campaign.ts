/**
 * Random schemas, each asked for in one of the ways there are, with random sampling and attention; every finished answer
 * is checked by a validator that is not ours. Knows the API; knows nothing of how a service is started.
 */

import { Ajv2020 } from "ajv/dist/2020.js";

import { Random } from "../support/random.ts";
import { randomSchema } from "../support/random_schema.ts";

type Json = Readonly<Record<string, unknown>>;

/** Asks a service. */
export type Ask = (path: string, body: Json) => Promise<{ readonly status: number; readonly body: unknown }>;

/** What became of the answers. */
export interface SchemaReport {
  readonly asked: number;
  /** Ended by themselves; all of them must satisfy their schemas. */
  readonly finished: number;
  /** Ended by their length, so that there is nothing to validate. */
  readonly cut: number;
  /** In words, with everything that it takes to repeat one. */
  readonly failures: readonly string[];
}

/** Which schemas. */
export interface CampaignOptions {
  readonly count: number;
  readonly seed: number;
  /** Asked at a time. */
  readonly concurrency: number;
  readonly maxTokens: number;
}

/** A way to ask for a schema, and to find the answer. */
interface Way {
  readonly path: string;
  readonly fields: (schema: Json, maxTokens: number) => Json;
  readonly read: (body: unknown) => { readonly text: string; readonly isFinished: boolean };
}

interface ChatBody {
  readonly choices: readonly {
    readonly finish_reason: string;
    readonly message: {
      readonly content: string | null;
      readonly tool_calls?: readonly { readonly function: { readonly arguments: string } }[];
    };
  }[];
}

interface ResponseBody {
  readonly status: string;
  readonly output: readonly { readonly content?: readonly { readonly text: string }[] }[];
}

const MESSAGES = [{ role: "user", content: "Describe a thing in JSON." }];

function chat(fields: (schema: Json) => Json): Way {
  return {
    path: "/v1/chat/completions",
    fields: (schema, max_tokens) => ({ messages: MESSAGES, max_tokens, ...fields(schema) }),
    read: (body) => {
      const choice = (body as ChatBody).choices[0];
      const text = choice?.message.tool_calls?.[0]?.function.arguments ?? choice?.message.content ?? "";
      return { text, isFinished: choice?.finish_reason !== "length" };
    },
  };
}

const NAMED = { name: "thing", strict: true };

const WAYS: readonly Way[] = [
  chat((schema) => ({ response_format: { type: "json_schema", json_schema: { ...NAMED, schema } } })),
  chat((schema) => ({ guided_json: schema })),
  chat((schema) => ({ structured_outputs: { json: schema } })),
  chat((schema) => ({ json_schema: schema })),
  {
    path: "/v1/responses",
    fields: (schema, max_output_tokens) => ({
      input: "Describe a thing in JSON.",
      max_output_tokens,
      text: { format: { type: "json_schema", ...NAMED, schema } },
    }),
    read: (body) => {
      const { status, output } = body as ResponseBody;
      const text = output.flatMap(({ content }) => content ?? []).map((part) => part.text).join("");
      return { text, isFinished: status === "completed" };
    },
  },
];

/** Arguments are objects. */
const CALL = chat((schema) => ({
  tools: [{ type: "function", function: { name: "thing", parameters: schema } }],
  tool_choice: { type: "function", function: { name: "thing" } },
}));

const ATTENTIONS: readonly (Json | undefined)[] = [
  undefined,
  { mode: "sparse", budget: 16 },
  { mode: "sparse", budget: 16, correction: "audit" },
  { mode: "sparse", budget: 16, correction: "lossless" },
];

/** Asks for `count` schemas. @param attends whether the model can attend sparsely */
export async function schemaCampaign(
  ask: Ask,
  { count, seed, concurrency, maxTokens }: CampaignOptions,
  { attends }: { readonly attends: boolean },
): Promise<SchemaReport> {
  const ajv = validator();
  let [finished, cut, next] = [0, 0, 0];
  const failures: string[] = [];
  const one = async (index: number) => {
    const random = new Random(1_000_003 * seed + index);
    const schema = randomSchema(random);
    const ways = schema.type === "object" ? [...WAYS, CALL] : WAYS;
    const way = ways[random.integer(ways.length)] ?? CALL;
    const temperature = [0, 0.7, 1, 1.5][random.integer(4)] ?? 1;
    const attention = attends ? ATTENTIONS[random.integer(ATTENTIONS.length)] : undefined;
    const fields = { ...way.fields(schema, maxTokens), temperature, seed: random.integer(2 ** 31) };
    const sent = { ...fields, ...(attention && { attention }) };
    const { status, body } = await ask(way.path, sent);
    const fail = (why: string) => failures.push(`#${index} ${way.path} ${JSON.stringify(sent)}: ${why}`);
    if (status !== 200) return fail(`${status} ${JSON.stringify(body)}`);
    const { text, isFinished } = way.read(body);
    if (!isFinished) return cut++;
    finished++;
    const fault = faultOf(text, ajv.compile(schema));
    if (fault !== undefined) fail(fault);
  };
  await Promise.all(Array.from({ length: concurrency }, async () => {
    while (next < count) await one(next++);
  }));
  return { asked: count, finished, cut, failures };
}

/** The package has no formats of its own. */
function validator(): Ajv2020 {
  const ajv = new Ajv2020({ strict: false });
  ajv.addFormat("date", /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$/);
  ajv.addFormat("time", /^([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/);
  ajv.addFormat("uuid", /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/);
  ajv.addFormat("ipv4", /^((25[0-5]|2[0-4]\d|1?\d?\d)(\.(?!$)|$)){4}$/);
  return ajv;
}

function faultOf(text: string, validate: ReturnType<Ajv2020["compile"]>): string | undefined {
  try {
    if (validate(JSON.parse(text))) return undefined;
    return `${text} does not satisfy it: ${JSON.stringify(validate.errors)}`;
  } catch (error) {
    if (error instanceof SyntaxError) return `${text} is no JSON: ${error.message}`;
    throw error;
  }
}
