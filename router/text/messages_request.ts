/**
 * Requests of Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens` as chat requests. Runs in a text thread.
 * Knows the fields of both; what they mean is the chat request's.
 */

import { at } from "../../kernels/at.ts";
import { z } from "@hono/zod-openapi";

import { RequestError } from "../errors.ts";
import type { ModelText } from "./model_text.ts";
import { prepareChat, type PrepareContext, type PreparedGeneration } from "./prepare.ts";
import { checkBody } from "../body/schemas.ts";

const MAX_BLOCKS = 16_384;

const block = z.looseObject({ type: z.string() });
const blocks = z.union([z.string(), z.array(block).max(MAX_BLOCKS)]);

const countedFields = {
  model: z.string(),
  system: blocks.nullish(),
  messages: z.array(z.looseObject({ role: z.enum(["user", "assistant", "system"]), content: blocks })).min(1).max(
    MAX_BLOCKS,
  ),
  tools: z.array(z.looseObject({ name: z.string() })).max(512).nullish(),
  tool_choice: z.looseObject({ type: z.enum(["auto", "any", "tool", "none"]) }).nullish(),
  thinking: z.looseObject({ type: z.string() }).nullish(),
} as const;

/** `POST /v1/messages/count_tokens` */
export const countTokensSchema = z.looseObject(countedFields).openapi("CountTokensRequest");

/** `POST /v1/messages` */
export const messagesSchema = z.looseObject({
  ...countedFields,
  max_tokens: z.int().min(1),
  stop_sequences: z.array(z.string()).nullish(),
  stream: z.boolean().nullish(),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  top_k: z.int().nullish(),
}).openapi("MessagesRequest");

type Counted = z.infer<typeof countTokensSchema>;
type Block = z.infer<typeof block>;
type Message = Record<string, unknown>;

/** @throws {RequestError} as `prepareChat` does */
export function prepareMessages(
  text: ModelText,
  value: Record<string, unknown>,
  context: PrepareContext,
): PreparedGeneration {
  const body = checkBody(messagesSchema, value);
  const chat = {
    ...chatOf(body),
    "max_tokens": body.max_tokens,
    stop: body.stop_sequences,
    stream: body.stream,
    temperature: body.temperature,
    "top_p": body.top_p,
    "top_k": body.top_k,
  };
  return prepareChat(text, chat, context);
}

/** What a prompt would take. */
export interface TokenCount {
  readonly "input_tokens": number;
}

/** @throws {RequestError} as `prepareMessages` does */
export function countTokens(text: ModelText, value: Record<string, unknown>, context: PrepareContext): TokenCount {
  const body = checkBody(countTokensSchema, value);
  // A prompt that leaves no room for an answer can be counted all the same.
  const roomy = { ...context, contextTokens: Infinity };
  const { prompts } = prepareChat(text, { ...chatOf(body), "max_tokens": 1 }, roomy);
  return { "input_tokens": at(prompts, 0).tokens.length };
}

function chatOf(body: Counted): Record<string, unknown> {
  const { system, tool_choice: choice, thinking, tools } = body;
  const messages = body.messages.flatMap(({ role, content }, i) =>
    chatMessages(role, content, `messages[${i}].content`)
  );
  return {
    model: body.model,
    messages: system ? [{ role: "system", content: textOf(system, "system") }, ...messages] : messages,
    ...(tools?.length && { tools: tools.map(chatTool) }),
    "tool_choice": chatChoice(choice),
    "parallel_tool_calls": choice?.disable_parallel_tool_use === true ? false : undefined,
    ...(thinking && { "chat_template_kwargs": { "enable_thinking": thinking.type !== "disabled" } }),
  };
}

function chatTool({ name, description, input_schema: parameters, type }: Record<string, unknown>, i: number): unknown {
  if (type !== undefined && type !== "custom") {
    throw refusal(
      `tools[${i}].type`,
      `Cannot offer tool of type "${String(type).slice(0, 40)}": only your own are supported`,
    );
  }
  return { type: "function", function: { name, description, parameters } };
}

function chatChoice(choice: Counted["tool_choice"]): unknown {
  if (!choice) return undefined;
  if (choice.type === "tool") return { type: "function", function: { name: choice.name } };
  return choice.type === "any" ? "required" : choice.type;
}

/** One message of Anthropic's may hold several of ours: results of tools are messages of their own. */
function chatMessages(role: string, content: string | readonly Block[], place: string): Message[] {
  if (typeof content === "string") return [{ role, content }];
  const results: Message[] = [];
  const texts: string[] = [];
  const calls: unknown[] = [];
  let reasoning = "";
  content.forEach((one, i) => {
    if (one.type === "text") texts.push(String(one.text));
    else if (one.type === "thinking") reasoning += String(one.thinking);
    else if (one.type === "redacted_thinking") return;
    else if (one.type === "tool_use") {
      calls.push({
        id: one.id,
        type: "function",
        function: { name: one.name, arguments: JSON.stringify(one.input ?? {}) },
      });
    } else if (one.type === "tool_result") {
      const text = textOf(one.content as string | readonly Block[] | undefined ?? "", `${place}[${i}].content`);
      results.push({ role: "tool", "tool_call_id": one.tool_use_id, content: one.is_error ? `Error: ${text}` : text });
    } else {throw refusal(
        `${place}[${i}].type`,
        `Cannot take content of type "${one.type.slice(0, 40)}": only text and tools`,
      );}
  });
  if (texts.length + calls.length === 0) return results;
  const message = {
    role,
    content: texts.join("\n"),
    ...(calls.length > 0 && { "tool_calls": calls }),
    ...(reasoning !== "" && { "reasoning_content": reasoning }),
  };
  return [...results, message];
}

function textOf(value: string | readonly Block[], place: string): string {
  if (typeof value === "string") return value;
  return value.map((one, i) => {
    if (one.type === "text") return String(one.text);
    throw refusal(
      `${place}[${i}].type`,
      `Cannot take content of type "${one.type.slice(0, 40)}": only text is supported`,
    );
  }).join("\n");
}

function refusal(param: string, message: string): RequestError {
  return new RequestError("unsupported", message, { param });
}
