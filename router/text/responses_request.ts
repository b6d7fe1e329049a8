/**
 * Requests of `POST /v1/responses` as chat requests; stateless: the whole conversation comes with each. Runs in a text
 * thread. Knows the fields of both; what they mean is the chat request's.
 */

import { z } from "@hono/zod-openapi";

import { unsupported } from "../errors.ts";
import type { ModelText } from "./model_text.ts";
import { sharedFields, withOwnFields } from "./own_fields.ts";
import { prepareChat, type PrepareContext, type PreparedGeneration } from "./prepare.ts";
import { checkBody } from "../body/schemas.ts";

const MAX_ITEMS = 16_384;

const part = z.looseObject({ type: z.string(), text: z.string().nullish(), refusal: z.string().nullish() });
const content = z.union([z.string(), z.array(part).max(MAX_ITEMS)]);

const item = z.looseObject({
  type: z.string().nullish(),
  role: z.string().nullish(),
  content: content.nullish(),
  summary: z.array(part).max(MAX_ITEMS).nullish(),
  call_id: z.string().nullish(),
  name: z.string().nullish(),
  arguments: z.string().nullish(),
  output: content.nullish(),
});

/** `POST /v1/responses` */
export const responsesSchema = z.looseObject({
  model: z.string().nullish(),
  input: z.union([z.string(), z.array(item).min(1).max(MAX_ITEMS)]),
  instructions: z.string().nullish(),
  previous_response_id: z.string().nullish(),
  conversation: z.unknown().optional(),
  prompt: z.unknown().optional(),
  include: z.array(z.string()).max(64).nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  reasoning: z.looseObject({ effort: z.string().nullish() }).nullish(),
  background: z.boolean().nullish(),
  store: z.boolean().nullish(),
  stream: z.boolean().nullish(),
  max_output_tokens: z.int().min(1).nullish(),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  tools: z.array(z.looseObject({ type: z.string() })).max(512).nullish(),
  tool_choice: z.union([z.string(), z.looseObject({ type: z.string() })]).nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  text: z.looseObject({ format: z.looseObject({ type: z.string() }).nullish() }).nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
}).openapi("ResponsesRequest");

type Body = z.infer<typeof responsesSchema>;
type Item = z.infer<typeof item>;
type Message = Record<string, unknown>;

/**
 * Prepares `POST /v1/responses`.
 * @throws {RequestError} as `prepareChat` does; `unsupported` for what needs a state or a tool of OpenAI's own
 */
export function prepareResponses(
  text: ModelText,
  value: Record<string, unknown>,
  context: PrepareContext,
): PreparedGeneration {
  const body = checkBody(responsesSchema, value);
  refuseState(body);
  refuseLogprobs(body);
  const given: Record<string, unknown> = body;
  const tools = body.tools?.map(chatTool);
  const { messages, places } = conversationOf(body);
  const chat = {
    ...sharedFields(body),
    "parallel_tool_calls": given["parallel_tool_calls"],
    stop: given["stop"],
    messages,
    "max_completion_tokens": body.max_output_tokens,
    "reasoning_effort": body.reasoning?.effort,
    ...(tools?.length && { tools }),
    "tool_choice": chatChoice(body.tool_choice),
    "response_format": chatFormat(body.text?.format),
  };
  const prepared = withOwnFields((param) => fieldOf(param, places), () => prepareChat(text, chat, context));
  return { ...prepared, echoed: echoedOf(body) };
}

/** What a response repeats of its request. */
function echoedOf(body: Body): Record<string, unknown> {
  const { instructions = null, temperature, top_p: topP, metadata } = body;
  return {
    instructions,
    temperature: temperature ?? 1,
    "top_p": topP ?? 1,
    metadata: metadata ?? {},
    tools: body.tools ?? [],
    "tool_choice": body.tool_choice ?? "auto",
    "parallel_tool_calls": body.parallel_tool_calls ?? true,
    "max_output_tokens": body.max_output_tokens ?? null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: null },
    text: { ...body.text, format: body.text?.format ?? { type: "text" } },
  };
}

/** The field of this API that a field of the chat request comes from. */
function fieldOf(param: string, places: readonly string[]): string {
  return param
    .replace(
      /^messages\[(\d+)\](\.tool_call_id)?/,
      (whole, i, id) => (places[Number(i)] ?? whole) + (id ? ".call_id" : ""),
    )
    .replace(/^messages$/, "input")
    .replace("max_completion_tokens", "max_output_tokens")
    .replace(/^(tools\[\d+\]|tool_choice)\.function/, "$1")
    .replace(/^tool_choice\.allowed_tools/, "tool_choice")
    .replace(/^response_format(\.json_schema)?/, "text.format");
}

function refuseState(body: Body): void {
  for (const field of ["previous_response_id", "conversation"] as const) {
    if (body[field] === undefined || body[field] === null) continue;
    throw unsupported(
      field,
      `Cannot continue ${field}: responses are not stored, send the whole conversation as input`,
    );
  }
  if (body.prompt !== undefined && body.prompt !== null) {
    throw unsupported("prompt", "Cannot take prompt: prompts are not stored, send instructions and input");
  }
  if (body.background) throw unsupported("background", "Cannot answer in the background: responses are not stored");
}

function refuseLogprobs({ include, top_logprobs: top }: Body): void {
  const isIncluded = include?.includes("message.output_text.logprobs") ?? false;
  if (!isIncluded && !top) return;
  const param = isIncluded ? "include" : "top_logprobs";
  throw unsupported(param, `Cannot honour ${param}: log-probabilities are in /v1/chat/completions and /v1/completions`);
}

/** Messages of a chat request, and where each comes from. */
class Conversation {
  readonly messages: Message[] = [];
  readonly places: string[] = [];
  /** Of the assistant's message that comes next. */
  #reasoning = "";

  add(message: Message, place: string): void {
    const reasoning = message.role === "assistant" && this.#reasoning !== "" &&
      { "reasoning_content": this.#reasoning };
    this.#reasoning = "";
    this.messages.push({ ...message, ...reasoning });
    this.places.push(place);
  }

  /** Joins the assistant's message before it, unless reasoning came between. */
  call(call: unknown, place: string): void {
    const last = this.messages.at(-1);
    if (last?.role !== "assistant" || this.#reasoning !== "") {
      return this.add({ role: "assistant", content: "", "tool_calls": [call] }, place);
    }
    const calls = last.tool_calls as unknown[] | undefined;
    this.messages[this.messages.length - 1] = { ...last, "tool_calls": [...calls ?? [], call] };
  }

  think(text: string): void {
    this.#reasoning += text;
  }
}

function conversationOf({ input, instructions }: Body): Conversation {
  const conversation = new Conversation();
  if (instructions) conversation.add({ role: "system", content: instructions }, "instructions");
  if (typeof input === "string") conversation.add({ role: "user", content: input }, "input");
  else input.forEach((one, i) => addItem(conversation, one, `input[${i}]`));
  return conversation;
}

function addItem(conversation: Conversation, one: Item, place: string): void {
  switch (one.type ?? "message") {
    case "message":
      return conversation.add({ role: one.role ?? "user", content: textOf(one.content, `${place}.content`) }, place);
    case "function_call": {
      const { call_id: id, name, arguments: text } = one;
      return conversation.call({ id, type: "function", function: { name, arguments: text ?? "" } }, place);
    }
    case "function_call_output":
      return conversation.add({
        role: "tool",
        "tool_call_id": one.call_id,
        content: textOf(one.output, `${place}.output`),
      }, place);
    case "reasoning":
      // Templates keep that of the turn that goes on, and may be asked to keep all.
      return conversation.think(textOf(one.content ?? one.summary, `${place}.content`));
    default:
      throw unsupported(
        `${place}.type`,
        `Cannot take input of type "${String(one.type).slice(0, 40)}": only messages, function calls and their outputs`,
      );
  }
}

function textOf(value: Item["content"], place: string): string {
  if (typeof value === "string") return value;
  return (value ?? []).map(({ type, text, refusal: refused }, i) => {
    if (typeof text === "string" && /^(input_|output_|reasoning_|summary_|)text$/.test(type)) return text;
    if (typeof refused === "string" && type === "refusal") return refused;
    throw unsupported(
      `${place}[${i}].type`,
      `Cannot take content of type "${type.slice(0, 40)}": only text is supported`,
    );
  }).join("\n");
}

function chatTool(tool: Record<string, unknown> & { type: string }, i: number): unknown {
  if (tool.type !== "function") {
    throw unsupported(
      `tools[${i}].type`,
      `Cannot offer tool of type "${tool.type.slice(0, 40)}": only functions are supported`,
    );
  }
  const { name, description, parameters, strict } = tool;
  return { type: "function", function: { name, description, parameters, strict } };
}

function chatChoice(choice: Body["tool_choice"]): unknown {
  if (typeof choice !== "object" || choice === null) return choice;
  const { type, name, mode, tools } = choice;
  if (type !== "allowed_tools") return { type, function: { name } };
  const named = Array.isArray(tools)
    ? tools.map((tool) => ({ type: tool?.type, function: { name: tool?.name } }))
    : tools;
  return { type, "allowed_tools": { mode, tools: named } };
}

function chatFormat(format: (Record<string, unknown> & { type: string }) | null | undefined): unknown {
  if (format?.type !== "json_schema") return format;
  const { name, schema, strict } = format;
  return { type: "json_schema", "json_schema": { name, schema, strict } };
}
