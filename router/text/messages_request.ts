/**
 * Requests of Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens` as chat requests. Runs in a text thread.
 * Knows the fields of both; what they mean is the chat request's.
 */

import { at } from "../../kernels/at.ts";
import { z } from "@hono/zod-openapi";

import { RequestError, unsupported } from "../errors.ts";
import type { ModelText } from "./model_text.ts";
import { sharedFields, withOwnFields } from "./own_fields.ts";
import { prepareChat, type PrepareContext, type PreparedGeneration } from "./prepare.ts";
import { checkBody } from "../body/schemas.ts";

const MAX_BLOCKS = 16_384;

const block = z.looseObject({ type: z.string() });
const blocks = z.union([z.string(), z.array(block).max(MAX_BLOCKS)]);

const outputFormat = z.looseObject({ type: z.literal("json_schema"), schema: z.record(z.string(), z.unknown()) })
  .nullish();

const countedFields = {
  model: z.string(),
  system: blocks.nullish(),
  messages: z.array(z.looseObject({ role: z.enum(["user", "assistant", "system"]), content: blocks })).min(1).max(
    MAX_BLOCKS,
  ),
  tools: z.array(z.looseObject({ name: z.string() })).max(512).nullish(),
  tool_choice: z.looseObject({ type: z.enum(["auto", "any", "tool", "none"]) }).nullish(),
  thinking: z.looseObject({ type: z.string() }).nullish(),
  output_config: z.looseObject({ format: outputFormat, effort: z.string().nullish() }).nullish(),
  // Its name while it was new.
  output_format: outputFormat,
  mcp_servers: z.array(z.unknown()).max(0, "servers of tools are not supported, send the tools").nullish(),
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
  const { messages, places } = conversationOf(body);
  const chat = {
    ...sharedFields(body),
    ...chatOf(body, messages),
    "max_tokens": body.max_tokens,
    stop: body.stop_sequences,
  };
  return withOwnFields((param) => fieldOf(param, places), () => prepareChat(text, chat, context));
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
  const { messages, places } = conversationOf(body);
  const chat = { ...chatOf(body, messages), "max_tokens": 1 };
  const { prompts } = withOwnFields((param) => fieldOf(param, places), () => prepareChat(text, chat, roomy));
  return { "input_tokens": at(prompts, 0).tokens.length };
}

/** Messages of a chat request, and where each comes from. */
interface Conversation {
  readonly messages: readonly Message[];
  readonly places: readonly string[];
}

function conversationOf({ system, messages }: Counted): Conversation {
  const placed = messages.flatMap(({ role, content }, i) =>
    chatMessages(role, content, `messages[${i}].content`).map((message) => ({ message, place: `messages[${i}]` }))
  );
  if (system) placed.unshift({ message: { role: "system", content: textOf(system, "system") }, place: "system" });
  return { messages: placed.map(({ message }) => message), places: placed.map(({ place }) => place) };
}

/** The field of this API that a field of the chat request comes from. */
function fieldOf(param: string, places: readonly string[]): string {
  return param
    .replace(
      /^messages\[(\d+)\](\.tool_call_id)?/,
      (whole, i, id) => (places[Number(i)] ?? whole) + (id ? ".content" : ""),
    )
    .replace(/^stop(?=$|\[)/, "stop_sequences")
    .replace(/^(tools\[\d+\])\.function\.parameters/, "$1.input_schema")
    .replace(/^(tools\[\d+\]|tool_choice)\.function/, "$1")
    .replace(/^response_format(\.json_schema)?/, "output_config.format");
}

function chatOf(body: Counted, messages: readonly Message[]): Record<string, unknown> {
  const { tool_choice: choice, thinking, tools, output_config: output } = body;
  const last = messages.at(-1);
  const format = output?.format ?? body.output_format;
  return {
    model: body.model,
    messages,
    // An assistant's message at the end is the beginning of the answer.
    ...(last?.role === "assistant" && last.tool_calls === undefined && { "continue_final_message": true }),
    ...(tools?.length && { tools: tools.map(chatTool) }),
    "tool_choice": chatChoice(choice),
    "parallel_tool_calls": choice?.disable_parallel_tool_use === true ? false : undefined,
    "reasoning_effort": output?.effort,
    ...(format && { "response_format": { type: "json_schema", "json_schema": { schema: format.schema } } }),
    ...(thinking && { "chat_template_kwargs": { "enable_thinking": thinking.type !== "disabled" } }),
  };
}

function chatTool({ input_schema: parameters, type, ...tool }: Record<string, unknown>, i: number): unknown {
  const { name, description, strict } = tool;
  if (type !== undefined && type !== "custom") {
    throw unsupported(
      `tools[${i}].type`,
      `Cannot offer tool of type "${String(type).slice(0, 40)}": only your own are supported`,
    );
  }
  return { type: "function", function: { name, description, parameters, strict } };
}

function chatChoice(choice: Counted["tool_choice"]): unknown {
  if (!choice) return undefined;
  if (choice.type === "tool") return { type: "function", function: { name: choice.name } };
  return choice.type === "any" ? "required" : choice.type;
}

/** One Anthropic message may become several here: results of tools are messages of their own. */
function chatMessages(role: string, content: string | readonly Block[], place: string): Message[] {
  if (typeof content === "string" || content.length === 0) return [{ role, content: content.toString() }];
  const results: Message[] = [];
  const texts: string[] = [];
  const calls: unknown[] = [];
  let reasoning = "";
  content.forEach((one, i) => {
    const at = `${place}[${i}]`;
    if (one.type === "text") texts.push(field(one, "text", at));
    else if (one.type === "thinking") reasoning += field(one, "thinking", at);
    else if (one.type === "tool_use") calls.push(callOf(one, at));
    else if (one.type === "tool_result") results.push(resultOf(one, at));
    else if (one.type !== "redacted_thinking") {
      throw unsupported(`${at}.type`, `Cannot take content of type "${one.type.slice(0, 40)}": only text and tools`);
    }
  });
  if (texts.length + calls.length === 0 && reasoning === "") return results;
  const message = {
    role,
    content: texts.join("\n"),
    ...(calls.length > 0 && { "tool_calls": calls }),
    ...(reasoning !== "" && { "reasoning_content": reasoning }),
  };
  return [...results, message];
}

function callOf(block: Block, place: string): unknown {
  const [id, name] = [field(block, "id", place), field(block, "name", place)];
  return { id, type: "function", function: { name, arguments: JSON.stringify(block.input ?? {}) } };
}

function resultOf(block: Block, place: string): Message {
  const { content, is_error: isError } = block;
  const isText = content === undefined || content === null || typeof content === "string";
  const text = isText ? content ?? "" : textOf(checkBody(blocks, content), `${place}.content`);
  const id = field(block, "tool_use_id", place);
  return { role: "tool", "tool_call_id": id, content: isError ? `Error: ${text}` : text };
}

function textOf(value: string | readonly Block[], place: string): string {
  if (typeof value === "string") return value;
  return value.map((one, i) => {
    const at = `${place}[${i}]`;
    if (one.type === "text") return field(one, "text", at);
    throw unsupported(`${at}.type`, `Cannot take content of type "${one.type.slice(0, 40)}": only text is supported`);
  }).join("\n");
}

/** A text that a block of its type must have. */
function field(block: Block, name: string, place: string): string {
  const value = block[name];
  if (typeof value === "string") return value;
  const message = `Cannot accept the request: ${place}.${name}: expected a string in a block of type "${block.type}"`;
  throw new RequestError("invalid_request", message, { param: `${place}.${name}` });
}
