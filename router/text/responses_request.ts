/**
 * Requests of `POST /v1/responses` as chat requests; stateless: the whole conversation comes with each. Runs in a text
 * thread. Knows the fields of both; what they mean is the chat request's.
 */

import { z } from "@hono/zod-openapi";

import { RequestError } from "../errors.ts";
import type { ModelText } from "./model_text.ts";
import { prepareChat, type PrepareContext, type PreparedGeneration } from "./prepare.ts";
import { checkBody } from "../body/schemas.ts";

const MAX_ITEMS = 16_384;

const part = z.looseObject({ type: z.string(), text: z.string().optional() });
const content = z.union([z.string(), z.array(part).max(MAX_ITEMS)]);

const item = z.looseObject({
  type: z.string().optional(),
  role: z.string().optional(),
  content: content.nullish(),
  call_id: z.string().optional(),
  name: z.string().optional(),
  arguments: z.string().optional(),
  output: content.optional(),
});

/** `POST /v1/responses` */
export const responsesSchema = z.looseObject({
  model: z.string().nullish(),
  input: z.union([z.string(), z.array(item).min(1).max(MAX_ITEMS)]),
  instructions: z.string().nullish(),
  previous_response_id: z.string().nullish(),
  conversation: z.unknown().optional(),
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

/** What is handed on as it came: fields of the chat request with the same name and meaning. */
const SHARED = [
  "model temperature top_p stream parallel_tool_calls seed top_k min_p repetition_penalty presence_penalty",
  "frequency_penalty stop stop_token_ids ignore_eos min_tokens cache_salt attention chat_template_kwargs",
].join(" ").split(" ");

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
  const given: Record<string, unknown> = body;
  const tools = body.tools?.map(chatTool);
  const chat = {
    ...Object.fromEntries(SHARED.map((field) => [field, given[field]])),
    "messages": messagesOf(body),
    "max_completion_tokens": body.max_output_tokens,
    ...(tools?.length && { tools }),
    "tool_choice": chatChoice(body.tool_choice),
    "response_format": chatFormat(body.text?.format),
  };
  const { instructions = null, temperature, top_p: topP, metadata } = body;
  const echoed = {
    instructions,
    temperature: temperature ?? 1,
    "top_p": topP ?? 1,
    metadata: metadata ?? {},
    tools: body.tools ?? [],
    "tool_choice": body.tool_choice ?? "auto",
    "parallel_tool_calls": body.parallel_tool_calls ?? true,
    "max_output_tokens": body.max_output_tokens ?? null,
    text: body.text ?? { format: { type: "text" } },
  };
  return { ...prepareChat(text, chat, context), echoed };
}

function refuseState(body: Body): void {
  for (const field of ["previous_response_id", "conversation"] as const) {
    if (body[field] === undefined || body[field] === null) continue;
    throw refusal(field, `Cannot continue ${field}: responses are not stored, send the whole conversation as input`);
  }
  if (body.background) throw refusal("background", "Cannot answer in the background: responses are not stored");
}

function refusal(param: string, message: string): RequestError {
  return new RequestError("unsupported", message, { param });
}

function messagesOf({ input, instructions }: Body): Message[] {
  const messages: Message[] = instructions ? [{ role: "system", content: instructions }] : [];
  if (typeof input === "string") return [...messages, { role: "user", content: input }];
  input.forEach((one, i) => addItem(messages, one, `input[${i}]`));
  return messages;
}

function addItem(messages: Message[], one: Item, place: string): void {
  const last = messages.at(-1);
  switch (one.type ?? "message") {
    case "message":
      messages.push({ role: one.role ?? "user", content: textOf(one.content ?? "", `${place}.content`) });
      return;
    case "function_call": {
      const call = { id: one.call_id, type: "function", function: { name: one.name, arguments: one.arguments ?? "" } };
      if (last?.role === "assistant") {
        const calls = last.tool_calls as unknown[] | undefined;
        messages[messages.length - 1] = { ...last, "tool_calls": [...calls ?? [], call] };
      } else messages.push({ role: "assistant", content: "", "tool_calls": [call] });
      return;
    }
    case "function_call_output":
      messages.push({
        role: "tool",
        "tool_call_id": one.call_id,
        content: textOf(one.output ?? "", `${place}.output`),
      });
      return;
    case "reasoning":
      // Templates drop the reasoning of earlier turns.
      return;
    default:
      throw refusal(
        `${place}.type`,
        `Cannot take input of type "${String(one.type).slice(0, 40)}": only messages, function calls and their outputs`,
      );
  }
}

function textOf(value: z.infer<typeof content>, place: string): string {
  if (typeof value === "string") return value;
  return value.map(({ type, text }, i) => {
    if (text !== undefined && /^(input_|output_|)text$/.test(type)) return text;
    throw refusal(`${place}[${i}].type`, `Cannot take content of type "${type.slice(0, 40)}": only text is supported`);
  }).join("\n");
}

function chatTool(tool: Record<string, unknown> & { type: string }, i: number): unknown {
  if (tool.type !== "function") {
    throw refusal(
      `tools[${i}].type`,
      `Cannot offer tool of type "${tool.type.slice(0, 40)}": only functions are supported`,
    );
  }
  const { name, description, parameters, strict } = tool;
  return { type: "function", function: { name, description, parameters, strict } };
}

function chatChoice(choice: Body["tool_choice"]): unknown {
  if (typeof choice !== "object" || choice === null) return choice;
  return { type: choice.type, function: { name: choice.name } };
}

function chatFormat(format: (Record<string, unknown> & { type: string }) | null | undefined): unknown {
  if (format?.type !== "json_schema") return format;
  const { name, schema, strict } = format;
  return { type: "json_schema", "json_schema": { name, schema, strict } };
}
