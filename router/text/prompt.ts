/**
 * Messages or prompts to token ids, with the model's template and tokenizer.
 * Knows roles and text parts; knows nothing of sampling, limits or HTTP.
 */

import { RequestError } from "../errors.ts";
import type { ToolFormatName } from "../answer/answer_part.ts";
import { TOOL_FORMATS } from "../answer/tool_formats.ts";
import { checkToolResults, type ToolPlan } from "./tools.ts";
import type { ModelText } from "./model_text.ts";
import type { MessageBody } from "../body/message_schema.ts";
import type { CompletionBody, TemplateBody } from "../body/schemas.ts";

/** What a prompt must fit, before and after it is tokenized. */
export interface PromptBounds {
  /** Rows of the model's embedding. */
  readonly vocabSize: number;
  /** More tokens than this are refused, from the length of the text where the tokenizer allows; by default any number. */
  readonly contextTokens?: number;
  /** Longer texts are refused, in UTF-16 units; by default any length. */
  readonly maxChars?: number;
}

/** A prompt, and its text when it should be echoed. */
export interface Prompt {
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly echo: string | undefined;
}

/** A prompt that a template rendered. */
export interface ChatPrompt extends Prompt {
  readonly text: string;
}

/** What a conversation is rendered with besides its messages. */
export interface ChatContext extends PromptBounds, Partial<Pick<ToolPlan, "tools" | "instructions">> {}

/**
 * Renders a conversation and tokenizes it.
 * @throws {RequestError} `invalid_request`, `unsupported` when the model has no template
 * @throws {EngineError} `invalid_text` when the template refuses the messages
 */
export function chatPrompt(text: ModelText, body: TemplateBody, context: ChatContext): ChatPrompt {
  const { tools, instructions, ...bounds } = context;
  const template = tools === undefined ? text.template : text.template?.forTools;
  if (template === undefined) {
    throw new RequestError("unsupported", "Cannot chat: the model has no chat template", { param: "messages" });
  }
  checkToolResults(body.messages);
  const given = instructions === undefined ? body.messages : instructed(body.messages, instructions);
  const isPlain = !template.source.includes("tool_calls");
  const messages = given.map((message) => templateMessage(message, isPlain ? text.toolFormat ?? "hermes" : undefined));
  const continues = body.continue_final_message ?? false;
  if (continues && (body.add_generation_prompt === true || messages.at(-1)?.role !== "assistant")) {
    throw new RequestError(
      "invalid_request",
      "Cannot continue the final message: it must be the assistant's, and add_generation_prompt false",
      { param: "continue_final_message" },
    );
  }
  const prompt = template.render(messages, {
    addGenerationPrompt: !continues && (body.add_generation_prompt ?? true),
    continueFinalMessage: continues,
    ...(tools && instructions === undefined && { tools }),
    kwargs: { ...effortOf(body), ...body.chat_template_kwargs },
  });
  checkLength(text, prompt, { ...bounds, param: "messages" });
  const tokens = checked(text.tokenizer.encode(prompt), { ...bounds, param: "messages" });
  return { tokens, echo: undefined, text: prompt };
}

/**
 * Tokenizes the prompts of a completion; token ids are taken as they are.
 * @throws {RequestError} `invalid_request`: a prompt without tokens, or a token outside the vocabulary
 */
export function completionPrompts(text: ModelText, body: CompletionBody, bounds: PromptBounds): Prompt[] {
  const { prompt } = body;
  const prompts = typeof prompt === "string" || typeof prompt[0] === "number" ? [prompt] : prompt;
  const addSpecialTokens = body.add_special_tokens ?? true;
  return prompts.map((one) => {
    if (typeof one === "string") {
      checkLength(text, one, { ...bounds, param: "prompt" });
      const tokens = text.tokenizer.encode(one, { addSpecialTokens });
      return { tokens: checked(tokens, { ...bounds, param: "prompt" }), echo: body.echo ? one : undefined };
    }
    const tokens = checked(Uint32Array.from(one as readonly number[]), { ...bounds, param: "prompt" });
    return { tokens, echo: body.echo ? text.tokenizer.decode(tokens) : undefined };
  });
}

/** What tokens are checked against, and the field to blame. */
export interface TokenBounds {
  /** Rows of the model's embedding: a GPU reads whatever lies after them. */
  readonly vocabSize: number;
  readonly param: string;
}

/** @throws {RequestError} `invalid_request` for an id outside the vocabulary */
export function tokensWithin<Tokens extends Uint32Array | readonly number[]>(
  tokens: Tokens,
  { vocabSize, param }: TokenBounds,
): Tokens {
  const outside = Array.prototype.find.call(tokens, (id: number) => id >= vocabSize);
  if (outside === undefined) return tokens;
  throw new RequestError(
    "invalid_request",
    `Cannot accept the request: ${param}: token ${outside} is outside the vocabulary of ${vocabSize}`,
    { param },
  );
}

/** @throws {RequestError} `invalid_request` for a text of more than `max` UTF-16 units */
export function checkChars(text: string, { max, param }: { readonly max: number; readonly param: string }): void {
  if (text.length <= max) return;
  throw new RequestError(
    "invalid_request",
    `Cannot tokenize ${param}: at most ${max} characters are taken, ${text.length} given`,
    { param },
  );
}

/** Refuses a text that is too long whatever its tokens are, before the time is spent on making them. */
function checkLength(
  { tokenizer: { longestTokenBytes } }: ModelText,
  text: string,
  { contextTokens, maxChars, param }: PromptBounds & { readonly param: string },
): void {
  if (maxChars !== undefined) checkChars(text, { max: maxChars, param });
  if (contextTokens === undefined || longestTokenBytes === undefined) return;
  const maxBytes = contextTokens * longestTokenBytes;
  // A UTF-16 unit is at most 3 bytes of UTF-8, and at least 1: mostly there is nothing to count.
  if (text.length * 3 <= maxBytes) return;
  const bytes = text.length > maxBytes ? text.length : new TextEncoder().encode(text).length;
  if (bytes <= maxBytes) return;
  const atLeast = Math.ceil(bytes / longestTokenBytes);
  throw new RequestError(
    "context_length_exceeded",
    `Cannot generate: a prompt of ${text.length} characters has over ${atLeast - 1} tokens, ` +
      `which exceed the context of ${contextTokens}`,
    { param },
  );
}

function checked<Tokens extends Uint32Array>(tokens: Tokens, bounds: TokenBounds): Tokens {
  if (tokens.length > 0) return tokensWithin(tokens, bounds);
  throw new RequestError("invalid_request", `Cannot generate: ${bounds.param} gives no tokens, at least 1 expected`, {
    param: bounds.param,
  });
}

/** @param writtenAs the format in which calls become text, for templates that have no place for them */
function templateMessage(message: MessageBody, writtenAs?: ToolFormatName) {
  const { role, content: _, refusal: __, tool_calls: calls, ...rest } = message;
  const extras = Object.entries(rest).filter(([, value]) => value !== null && value !== undefined);
  const text = contentOf(message);
  const parsed = (calls ?? []).map((call) => ({
    ...call,
    function: { ...call.function, arguments: argumentsOf(call) },
  }));
  return {
    ...Object.fromEntries(extras),
    ...(calls?.length && writtenAs === undefined && { tool_calls: parsed }),
    // The newer name of the same role; the templates of open models know the older one.
    role: role === "developer" ? "system" : role,
    content: writtenAs === undefined ? text : [text, ...(calls ?? []).map((call) => written(call, writtenAs))].join(""),
  };
}

/** A refusal is what the assistant said. */
function contentOf({ content, refusal }: MessageBody): string {
  if (typeof content === "string") return content;
  if (content === undefined || content === null) return refusal ?? "";
  return content.map((part) => (part.type === "text" ? part.text : part.refusal)).join("\n");
}

/** As vLLM does; `enable_thinking` is what Qwen's templates know. */
function effortOf({ reasoning_effort: effort }: TemplateBody): Readonly<Record<string, unknown>> {
  if (effort === undefined || effort === null) return {};
  return { "reasoning_effort": effort, ...(effort === "none" && { "enable_thinking": false }) };
}

type Call = NonNullable<MessageBody["tool_calls"]>[number];

/** Templates write arguments as JSON themselves, so they need the value; what is no JSON stays a text. */
function argumentsOf({ function: { arguments: text } }: Call): unknown {
  try {
    return JSON.parse(text || "{}");
  } catch {
    return text;
  }
}

function written({ function: { name, arguments: text } }: Call, format: ToolFormatName): string {
  const { begin, end } = TOOL_FORMATS[format].around(name);
  return begin + (text || "{}") + end;
}

/** Instructions go into the system message, or make one. */
function instructed(messages: readonly MessageBody[], instructions: string): MessageBody[] {
  const [first, ...others] = messages;
  const isSystem = first?.role === "system" || first?.role === "developer";
  if (first === undefined || !isSystem) return [{ role: "system", content: instructions }, ...messages];
  return [{ ...first, content: `${contentOf(first)}\n\n${instructions}` }, ...others];
}
