/** `POST /v1/chat/completions`: the shapes of its answers. Knows the wire format; knows nothing of how answers arise. */

import type { ScoredToken, ShownToken } from "./answer.ts";
import type { WireFormat } from "./wire_format.ts";

/** Chat completions. */
export const CHAT_FORMAT: WireFormat = {
  operation: "chat",
  job: "chat",
  idPrefix: "chatcmpl-",
  object: { whole: "chat.completion", chunk: "chat.completion.chunk" },

  whole: (index, { text, scored, reason, stopReason }) => ({
    index,
    message: { role: "assistant", content: text, refusal: null },
    logprobs: logprobs(scored),
    finish_reason: reason,
    stop_reason: stopReason ?? null,
  }),

  opening: (index) => ({
    index,
    delta: { role: "assistant", content: "" },
    logprobs: null,
    finish_reason: null,
  }),

  piece: (index, text, scored) => ({
    index,
    delta: { content: text },
    logprobs: logprobs(scored && [scored]),
    finish_reason: null,
  }),

  closing: (index, { reason, stopReason }) => ({
    index,
    delta: {},
    logprobs: null,
    finish_reason: reason,
    stop_reason: stopReason ?? null,
  }),
};

function logprobs(scored: readonly ScoredToken[] | undefined) {
  if (scored === undefined) return null;
  return {
    content: scored.map((token) => ({ ...shown(token), top_logprobs: token.top.map(shown) })),
    refusal: null,
  };
}

function shown({ text, logprob, bytes }: ShownToken) {
  return { token: text, logprob, bytes };
}
