/** `POST /v1/responses`: the shapes of its answers. Knows the wire format; knows nothing of how answers arise. */

import type { AnswerPiece } from "./answer.ts";
import { type ItemEvent, itemsOf, type OutputItem, OutputItems } from "./output_items.ts";
import { sseComment, sseEvent } from "./sse.ts";
import { usageBody } from "./usage.ts";
import type { AnswerContext, ChoiceEnd, StreamWriter, WireFormat } from "./wire_format.ts";

type Json = Readonly<Record<string, unknown>>;

/** Responses. */
export const RESPONSES_FORMAT: WireFormat = {
  operation: "responses",
  job: "responses",
  idPrefix: "resp_",
  whole: (context, [choice]) => responseBody(context, itemsOf(choice?.parts ?? []), choice),
  stream: (context) => new ResponseStream(context),
};

/** @param end undefined: not over yet */
function responseBody(context: AnswerContext, items: readonly OutputItem[], end: ChoiceEnd | undefined): Json {
  const { head, prepared, usage } = context;
  const isCut = end?.reason === "length";
  return {
    id: head.id,
    object: "response",
    "created_at": head.created,
    status: end === undefined ? "in_progress" : isCut ? "incomplete" : "completed",
    background: false,
    error: null,
    "incomplete_details": isCut ? { reason: "max_output_tokens" } : null,
    model: head.model,
    ...prepared.echoed,
    output: items.map((item, i) => itemBody(item, isCut && i === items.length - 1 ? "incomplete" : "completed")),
    "previous_response_id": null,
    store: false,
    truncation: "disabled",
    usage: end === undefined ? null : responseUsage(usageBody(usage())),
  };
}

function responseUsage({ prompt_tokens: input, completion_tokens: output, ...rest }: Json): Json {
  return {
    "input_tokens": input,
    "input_tokens_details": rest.prompt_tokens_details,
    "output_tokens": output,
    "output_tokens_details": rest.completion_tokens_details,
    "total_tokens": rest.total_tokens,
    attention: rest.attention,
  };
}

/** @param status of an answer's last item, `incomplete` where its length has cut it */
function itemBody(item: OutputItem, status: "in_progress" | "completed" | "incomplete"): Json {
  const text = status === "in_progress" ? "" : item.text;
  if (item.kind === "call") {
    return {
      type: "function_call",
      id: `fc_${item.callId}`,
      "call_id": item.callId,
      name: item.name,
      arguments: text,
      status,
    };
  }
  const content = status === "in_progress" ? [] : [partBody(item, text)];
  if (item.kind === "reasoning") return { type: "reasoning", id: `rs_${item.callId}`, summary: [], content, status };
  return { type: "message", id: `msg_${item.callId}`, role: "assistant", content, status };
}

function partBody({ kind }: OutputItem, text: string): Json {
  return kind === "reasoning"
    ? { type: "reasoning_text", text }
    : { type: "output_text", text, annotations: [], logprobs: [] };
}

class ResponseStream implements StreamWriter {
  readonly #context: AnswerContext;
  readonly #items = new OutputItems();
  #sequence = 0;
  #end: ChoiceEnd | undefined;

  constructor(context: AnswerContext) {
    this.#context = context;
  }

  *start(): Iterable<string> {
    const response = responseBody(this.#context, [], undefined);
    yield this.#event("response.created", { response });
    yield this.#event("response.in_progress", { response });
  }

  *prefill({ total, cached, processed }: Extract<AnswerPiece, { kind: "prefill" }>): Iterable<string> {
    yield sseComment(`prefill ${JSON.stringify({ total, cached, processed })}`);
  }

  *piece(_index: number, piece: Exclude<AnswerPiece, { kind: "prefill" }>): Iterable<string> {
    for (const event of this.#items.push(piece.parts)) yield* this.#itemEvents(event);
    if (piece.kind === "end") this.#end = piece;
  }

  *end(): Iterable<string> {
    const isCut = this.#end?.reason === "length";
    for (const event of this.#items.end()) yield* this.#itemEvents(event, isCut);
    const response = responseBody(this.#context, this.#items.items, this.#end);
    yield this.#event(`response.${isCut ? "incomplete" : "completed"}`, { response });
  }

  *failed({ body: { error } }: Parameters<StreamWriter["failed"]>[0]): Iterable<string> {
    const { message, code, param, type } = error;
    const response = {
      ...responseBody(this.#context, this.#items.items, undefined),
      status: "failed",
      error: { code: code ?? type, message },
    };
    yield this.#event("error", { code: code ?? type, message, param });
    yield this.#event("response.failed", { response });
  }

  *#itemEvents(event: ItemEvent, isCut = false): Iterable<string> {
    const { item } = event;
    const isCall = item.kind === "call";
    const noun = isCall ? "function_call_arguments" : item.kind === "reasoning" ? "reasoning_text" : "output_text";
    const at = { "item_id": itemBody(item, "in_progress").id, "output_index": item.index };
    const within = isCall ? at : { ...at, "content_index": 0 };
    // Clients expect the field, which is empty: see `refuseLogprobs`.
    const logprobs = item.kind === "content" && { logprobs: [] };
    if (event.kind === "begin") {
      yield this.#event("response.output_item.added", {
        "output_index": item.index,
        item: itemBody(item, "in_progress"),
      });
      if (!isCall) yield this.#event("response.content_part.added", { ...within, part: partBody(item, "") });
    } else if (event.kind === "delta") {
      yield this.#event(`response.${noun}.delta`, { ...within, delta: event.text, ...logprobs });
    } else {
      const done = isCall ? { name: item.name, arguments: item.text } : { text: item.text, ...logprobs };
      yield this.#event(`response.${noun}.done`, { ...within, ...done });
      if (!isCall) yield this.#event("response.content_part.done", { ...within, part: partBody(item, item.text) });
      yield this.#event("response.output_item.done", {
        "output_index": item.index,
        item: itemBody(item, isCut ? "incomplete" : "completed"),
      });
    }
  }

  #event(type: string, fields: Json): string {
    return sseEvent(type, { type, "sequence_number": this.#sequence++, ...fields });
  }
}
