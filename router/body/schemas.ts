/**
 * What a request may say, field by field; the source of validation and of the OpenAPI document alike.
 * Knows fields and their ranges; what depends on the model (context, vocabulary) is checked in `prepare.ts`.
 */

import { z } from "@hono/zod-openapi";

import { MIN_BUDGET } from "../../engine/layer_plan.ts";
import { MAX_CORRECT_EVERY } from "../scheduling/correction.ts";
import { list } from "./bounded_list.ts";
import { MAX_MESSAGES, message } from "./message_schema.ts";
import { describeIssues } from "./schema_issues.ts";

/** Sequences one completions request may ask for: prompts × n. */
export const MAX_CHOICES = 128;

/** OpenAI takes four, Anthropic and vLLM more. */
const MAX_STOPS = 64;
const MAX_STOP_CHARS = 1024;
const MAX_LISTED_TOKENS = 1024;
const MAX_PRIORITY = 2 ** 31 - 1;

const tokenId = z.int().min(0).max(2 ** 32 - 1);
const flag = z.boolean().nullish();

const logitBias = z.custom<Record<string, number>>((value) => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const entries = Object.entries(value);
  return entries.length <= MAX_LISTED_TOKENS &&
    entries.every(([token, bias]) =>
      /^\d{1,9}$/.test(token) && typeof bias === "number" && bias >= -100 && bias <= 100
    );
}, `expected an object of at most ${MAX_LISTED_TOKENS} token ids, each with a bias from -100 to 100`)
  .openapi({ type: ["object", "null"], additionalProperties: { type: "number", minimum: -100, maximum: 100 } });

/** Of 64 bits, signed, as OpenAI has it; the library's own integers end at 53. */
const seed = z.custom<number>(
  (value) => Number.isInteger(value) && Math.abs(Number(value)) <= 2 ** 63,
  "expected an integer of at most 64 bits",
).openapi({ type: ["integer", "null"], format: "int64" });

const stop = z.union([
  z.string().min(1).max(MAX_STOP_CHARS),
  list(z.string().min(1).max(MAX_STOP_CHARS), { max: MAX_STOPS }),
]);

/**
 * How decoded rows attend; the answer's `usage.attention` reports how they did. With the budget `auto` a sparse layer reads
 * as few positions as cover `coverage` of the attention, at most `max_budget`.
 */
const attention = z.object({
  mode: z.enum(["auto", "dense", "sparse"]).nullish(),
  budget: z.union([z.int().min(MIN_BUDGET), z.literal("auto")]).nullish(),
  coverage: z.number().gt(0).max(1).nullish(),
  max_budget: z.int().min(MIN_BUDGET).nullish(),
  heads: z.enum(["kv_head", "query_head", "all_heads"]).nullish(),
  correction: z.enum(["refresh", "audit", "lossless", "off"]).nullish(),
  correct_every: z.union([z.int().min(0).max(MAX_CORRECT_EVERY), z.literal("auto")]).nullish(),
  audit_tokens: flag,
}).openapi("Attention");

const MAX_GRAMMAR_CHARS = 262_144;
const MAX_CHOICE_TEXTS = 10_000;

const choiceTexts = list(z.string().min(1).max(MAX_GRAMMAR_CHARS), { min: 1, max: MAX_CHOICE_TEXTS }).nullish();
const grammarText = z.string().max(MAX_GRAMMAR_CHARS).nullish();
const jsonSchema = z.unknown().optional().openapi({ type: ["object", "string", "null"] });

const responseFormat = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object"), schema: jsonSchema }),
  z.object({
    type: z.literal("json_schema"),
    json_schema: z.object({ name: z.string().nullish(), schema: jsonSchema, strict: flag }),
  }),
]);

/** The form of the answer, as OpenAI, vLLM (two generations of it) and llama.cpp ask for it. */
const grammarFields = {
  response_format: responseFormat.nullish(),
  structured_outputs: z.object({
    json: jsonSchema,
    regex: grammarText,
    choice: choiceTexts,
    grammar: grammarText,
    json_object: flag,
  }).nullish(),
  guided_json: jsonSchema,
  guided_regex: grammarText,
  guided_choice: choiceTexts,
  guided_grammar: grammarText,
  guided_json_object: flag,
  grammar: grammarText,
  json_schema: jsonSchema,
} as const;

const generationFields = {
  model: z.string().nullish(),
  stream: flag,
  stream_options: z.object({ include_usage: flag, continuous_usage_stats: flag, include_obfuscation: flag }).nullish(),
  max_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  // −1 is how vLLM's clients switch it off.
  top_k: z.int().min(-1).max(2 ** 31 - 1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().gt(0).max(10).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  logit_bias: logitBias.nullish(),
  seed: seed.nullish(),
  n: z.int().min(1).max(MAX_CHOICES).nullish(),
  stop: stop.nullish(),
  stop_token_ids: list(tokenId, { max: MAX_LISTED_TOKENS }).nullish(),
  include_stop_str_in_output: flag,
  min_tokens: z.int().min(0).nullish(),
  ignore_eos: flag,
  skip_special_tokens: flag,
  cache_salt: z.string().max(256).nullish(),
  // vLLM's: lower ones go first.
  priority: z.int().min(-MAX_PRIORITY).max(MAX_PRIORITY).nullish(),
  return_progress: flag,
  return_token_ids: flag,
  attention: attention.nullish(),
  ...grammarFields,
} as const;

const MAX_TOOLS = 512;

const tool = z.object({
  type: z.literal("function"),
  function: z.object({
    name: z.string().regex(/^[a-zA-Z0-9_.-]{1,128}$/, "expected 1 to 128 letters, digits, underscores, dots or dashes"),
    description: z.string().nullish(),
    parameters: z.record(z.string(), z.unknown()).nullish(),
    strict: flag,
  }),
}).openapi("Tool");

const namedTool = z.object({ type: z.literal("function"), function: z.object({ name: z.string() }) });

const toolFields = {
  tools: list(tool, { max: MAX_TOOLS }).nullish(),
  tool_choice: z.union([
    z.enum(["none", "auto", "required"]),
    z.discriminatedUnion("type", [
      namedTool,
      z.object({
        type: z.literal("allowed_tools"),
        allowed_tools: z.object({
          mode: z.enum(["auto", "required"]),
          tools: list(namedTool, { min: 1, max: MAX_TOOLS }),
        }),
      }),
    ]),
  ]).nullish(),
  parallel_tool_calls: flag,
} as const;

const messages = list(message, { min: 1, max: MAX_MESSAGES });

const templateFields = {
  messages,
  add_generation_prompt: flag,
  continue_final_message: flag,
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
  // For templates that know it; "none" switches reasoning off.
  reasoning_effort: z.string().max(32).nullish(),
} as const;

/** Fields that change what the answer means: dropping them silently would mislead, so they are refused if used. */
const refusedOnChat = {
  functions: z.array(z.unknown()).nullish(),
  modalities: list(z.string(), { max: 8 }).nullish(),
  audio: z.unknown().optional(),
} as const;

/** `POST /v1/chat/completions` */
export const chatSchema = z.object({
  ...generationFields,
  ...templateFields,
  ...toolFields,
  ...refusedOnChat,
  max_completion_tokens: z.int().min(1).nullish(),
  logprobs: flag,
  top_logprobs: z.int().min(0).max(20).nullish(),
}).openapi("ChatCompletionRequest");

/** A prompt of a completion: text, token ids, or several of either. */
export type PromptField = string | readonly string[] | readonly number[] | readonly (readonly number[])[];

const isTokenList = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length > 0 &&
  value.every((token) => Number.isInteger(token) && token >= 0 && token < 2 ** 32);

// By hand: prompts are long, and the schema library would try each form on every element.
const prompt = z.custom<PromptField>(
  (value) =>
    typeof value === "string" || isTokenList(value) || (Array.isArray(value) && value.length > 0 &&
      value.length <= MAX_CHOICES && (value.every((item) => typeof item === "string") || value.every(isTokenList))),
  `expected a string, an array of token ids, or an array of 1 to ${MAX_CHOICES} of either`,
).openapi({
  type: ["string", "array"],
  items: {
    oneOf: [{ type: "string" }, { type: "integer" }, { type: "array", items: { type: "integer" } }],
  },
});

/** `POST /v1/completions` */
export const completionSchema = z.object({
  ...generationFields,
  prompt,
  echo: flag,
  best_of: z.int().nullish(),
  suffix: z.string().nullish(),
  logprobs: z.int().min(0).max(5).nullish(),
  add_special_tokens: flag,
}).openapi("CompletionRequest");

const text = z.custom<string>((value) => typeof value === "string", "expected a string")
  .openapi({ type: ["string", "null"] });

/** `POST /tokenize`: `prompt` or `messages` as in vLLM, `content` as in llama.cpp. */
export const tokenizeSchema = z.object({
  model: z.string().nullish(),
  prompt: text.nullish(),
  content: text.nullish(),
  ...templateFields,
  messages: messages.nullish(),
  add_special_tokens: flag,
  return_token_strs: flag,
  add_special: flag,
  with_pieces: flag,
}).openapi("TokenizeRequest");

/** `POST /detokenize` */
export const detokenizeSchema = z.object({
  model: z.string().nullish(),
  tokens: z.custom<readonly number[]>(
    (value) => isTokenList(value) || (Array.isArray(value) && value.length === 0),
    "expected an array of token ids",
  ).openapi({ type: "array", items: { type: "integer" } }),
}).openapi("DetokenizeRequest");

/** The fields of a valid chat request. */
export type ChatBody = z.infer<typeof chatSchema>;
/** The fields of a valid completion request. */
export type CompletionBody = z.infer<typeof completionSchema>;
/** One tool of a valid chat request. */
export type ToolBody = z.infer<typeof tool>;
/** The fields that say which tools there are. */
export type ToolsBody = Pick<ChatBody, keyof typeof toolFields>;
/** The fields that say what the answer must look like. */
export type GrammarBody = Pick<ChatBody, keyof typeof grammarFields>;
/** The fields that decide how messages become a prompt. */
export type TemplateBody = Pick<ChatBody, keyof typeof templateFields>;

/**
 * Checks a parsed body against a schema; unknown fields are dropped, null counts as absent.
 * @throws {RequestError} `invalid_request`, naming field, bound and the value given
 */
export function checkBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.infer<Schema> {
  const result = schema.safeParse(body, { reportInput: true });
  if (!result.success) throw describeIssues(result.error.issues);
  return result.data;
}
