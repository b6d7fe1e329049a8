/** `POST /v1/chat/completions`: the shapes of its answers. Knows the wire format; knows nothing of how answers arise. */

import type { AnswerPart } from "../answer/answer_part.ts";
import type { ScoredToken, ShownToken } from "./answer.ts";
import { newCallId, wholeCalls } from "./call_ids.ts";
import { type ChoiceBody, choiceEndpoint, type ChoiceWriter } from "./choice_stream.ts";
import type { ChoiceEnd, WireFormat } from "./wire_format.ts";

/** Chat completions. */
export const CHAT_FORMAT: WireFormat = choiceEndpoint({
  operation: "chat",
  job: "chat",
  idPrefix: "chatcmpl-",
  object: { whole: "chat.completion", chunk: "chat.completion.chunk" },

  whole: ({ index, parts, scored, ...end }) => {
    const textOf = (kind: "content" | "reasoning") =>
      parts.map((part) => (part.kind === kind ? part.text : "")).join("");
    const calls = wholeCalls(parts);
    const reasoning = textOf("reasoning");
    const content = textOf("content");
    return {
      index,
      message: {
        role: "assistant",
        content: calls.length > 0 && content === "" ? null : content,
        refusal: null,
        ...(reasoning !== "" && { reasoning_content: reasoning }),
        ...(calls.length > 0 && {
          tool_calls: calls.map((call) => ({
            id: call.id,
            type: "function",
            function: { name: call.name, arguments: call.arguments },
          })),
        }),
      },
      logprobs: logprobs(scored),
      ...ending(end, calls.length),
    };
  },

  open: (index) => new ChatChoice(index),
});

class ChatChoice implements ChoiceWriter {
  readonly opening: ChoiceBody;
  readonly silent: ChoiceBody;
  readonly #index: number;
  #calls = 0;

  constructor(index: number) {
    this.#index = index;
    this.opening = this.#chunk({ role: "assistant", content: "" });
    this.silent = this.#chunk({ content: "" });
  }

  piece({ parts }: { readonly parts: readonly AnswerPart[] }, scored: ScoredToken | undefined): ChoiceBody[] {
    const deltas = parts.map((part) => this.#delta(part));
    if (deltas.length === 0 && scored !== undefined) deltas.push({ content: "" });
    return deltas.map((delta, i) => this.#chunk(delta, i === 0 && scored ? [scored] : undefined));
  }

  closing(end: ChoiceEnd): ChoiceBody {
    return { ...this.#chunk({}), ...ending(end, this.#calls) };
  }

  #delta(part: AnswerPart): Readonly<Record<string, unknown>> {
    if (part.kind === "content") return { content: part.text };
    if (part.kind === "reasoning") return { reasoning_content: part.text };
    const { index } = part;
    if (part.kind === "arguments") return { tool_calls: [{ index, function: { arguments: part.text } }] };
    this.#calls++;
    const called = { name: part.name, arguments: "" };
    return { tool_calls: [{ index, id: newCallId(), type: "function", function: called }] };
  }

  #chunk(delta: Readonly<Record<string, unknown>>, scored?: readonly ScoredToken[]): ChoiceBody {
    return { index: this.#index, delta, logprobs: logprobs(scored), finish_reason: null };
  }
}

function ending({ reason, stopReason }: ChoiceEnd, calls: number) {
  return { finish_reason: calls > 0 && reason === "stop" ? "tool_calls" : reason, stop_reason: stopReason ?? null };
}

function logprobs(scored: readonly ScoredToken[] | undefined) {
  if (scored === undefined) return null;
  return {
    content: scored.map((token) => ({ ...shown(token), top_logprobs: token.top.map(shown) })),
    refusal: null,
  };
}

function shown({ id, text, logprob, bytes }: ShownToken) {
  return { token: text, token_id: id, logprob, bytes };
}
