/** Anthropic's `POST /v1/messages`: the shapes of its answers. Knows the wire format; knows nothing of how answers arise. */

import type { AnswerPiece } from "./answer.ts";
import { messagesError } from "../error_form.ts";
import { type ItemEvent, itemsOf, type OutputItem, OutputItems } from "./output_items.ts";
import type { GenerationUsage } from "../scheduling/generation.ts";
import { sseComment, sseEvent } from "./sse.ts";
import type { AnswerContext, ChoiceEnd, StreamWriter, WireFormat } from "./wire_format.ts";

type Json = Readonly<Record<string, unknown>>;

/** Messages. */
export const MESSAGES_FORMAT: WireFormat = {
  operation: "chat",
  job: "messages",
  idPrefix: "msg_",
  whole: (context, [choice]) => {
    const items = itemsOf(choice?.parts ?? []);
    return messageBody(context, items.map((item) => blockBody(item)), choice && stopOf(choice, items));
  },
  stream: (context) => new MessageStream(context),
};

function messageBody({ head, usage }: AnswerContext, content: readonly Json[], stop: Json | undefined): Json {
  const none = { "stop_reason": null, "stop_sequence": null };
  const { id, model } = head;
  return { id, type: "message", role: "assistant", model, content, ...(stop ?? none), usage: usageOf(usage()) };
}

function usageOf({ promptTokens, cachedTokens, completionTokens }: GenerationUsage): Json {
  return {
    "input_tokens": promptTokens - cachedTokens,
    "cache_read_input_tokens": cachedTokens,
    "cache_creation_input_tokens": 0,
    "output_tokens": completionTokens,
  };
}

function stopOf({ reason, stopReason }: ChoiceEnd, items: readonly OutputItem[]): Json {
  const isSequence = typeof stopReason === "string";
  const called = items.some(({ kind }) => kind === "call");
  const name = reason === "length" ? "max_tokens" : called ? "tool_use" : isSequence ? "stop_sequence" : "end_turn";
  return { "stop_reason": name, "stop_sequence": isSequence ? stopReason : null };
}

function blockBody({ kind, callId, name, text }: OutputItem): Json {
  if (kind === "call") return { type: "tool_use", id: `toolu_${callId}`, name, input: inputOf(text) };
  // Nothing here is signed; clients send the signature back as it is.
  return kind === "reasoning" ? { type: "thinking", thinking: text, signature: "" } : { type: "text", text };
}

/** Arguments that were cut by the length are no JSON: they are handed on under a name of their own. */
function inputOf(text: string): unknown {
  try {
    return JSON.parse(text || "{}");
  } catch {
    return { "incomplete_json": text };
  }
}

class MessageStream implements StreamWriter {
  readonly #context: AnswerContext;
  readonly #items = new OutputItems();
  #end: ChoiceEnd | undefined;

  constructor(context: AnswerContext) {
    this.#context = context;
  }

  *start(): Iterable<string> {
    yield event("message_start", { message: messageBody(this.#context, [], undefined) });
    yield event("ping", {});
  }

  *prefill({ total, cached, processed }: Extract<AnswerPiece, { kind: "prefill" }>): Iterable<string> {
    yield sseComment(`prefill ${JSON.stringify({ total, cached, processed })}`);
  }

  *piece(_index: number, piece: Exclude<AnswerPiece, { kind: "prefill" }>): Iterable<string> {
    for (const itemEvent of this.#items.push(piece.parts)) yield* blockEvents(itemEvent);
    if (piece.kind === "end") this.#end = piece;
  }

  *end(): Iterable<string> {
    for (const itemEvent of this.#items.end()) yield* blockEvents(itemEvent);
    const delta = this.#end && stopOf(this.#end, this.#items.items);
    yield event("message_delta", { delta, usage: usageOf(this.#context.usage()) });
    yield event("message_stop", {});
  }

  *failed(error: Parameters<StreamWriter["failed"]>[0]): Iterable<string> {
    yield sseEvent("error", messagesError(error));
  }
}

function* blockEvents({ item, ...itemEvent }: ItemEvent): Iterable<string> {
  const { index, kind } = item;
  if (itemEvent.kind === "begin") {
    const body = kind === "call" ? { ...blockBody(item), input: {} } : blockBody({ ...item, text: "" });
    yield event("content_block_start", { index, "content_block": body });
  } else if (itemEvent.kind === "delta") {
    const { text } = itemEvent;
    const delta = kind === "call"
      ? { type: "input_json_delta", "partial_json": text }
      : kind === "reasoning"
      ? { type: "thinking_delta", thinking: text }
      : { type: "text_delta", text };
    yield event("content_block_delta", { index, delta });
  } else yield event("content_block_stop", { index });
}

function event(type: string, fields: Json): string {
  return sseEvent(type, { type, ...fields });
}
