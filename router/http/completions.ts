/** `POST /v1/completions`: the shapes of its answers. Knows the wire format; knows nothing of how answers arise. */

import type { ScoredToken } from "./answer.ts";
import type { WireFormat } from "./wire_format.ts";

/** Text completions. */
export const COMPLETION_FORMAT: WireFormat = {
  operation: "text_completion",
  job: "completion",
  idPrefix: "cmpl-",
  object: { whole: "text_completion", chunk: "text_completion" },

  whole: (index, { text, scored, echo, reason, stopReason }) => ({
    index,
    text: (echo ?? "") + text,
    logprobs: logprobs(scored),
    finish_reason: reason,
    stop_reason: stopReason ?? null,
  }),

  opening: (index, echo) => echo === undefined ? undefined : { index, text: echo, logprobs: null, finish_reason: null },

  piece: (index, text, scored) => ({ index, text, logprobs: logprobs(scored && [scored]), finish_reason: null }),

  closing: (index, { reason, stopReason }) => ({
    index,
    text: "",
    logprobs: null,
    finish_reason: reason,
    stop_reason: stopReason ?? null,
  }),
};

function logprobs(scored: readonly ScoredToken[] | undefined) {
  if (scored === undefined) return null;
  return {
    tokens: scored.map((token) => token.text),
    token_logprobs: scored.map((token) => token.logprob),
    // The drawn token is always among them, so there may be one more than asked for.
    top_logprobs: scored.map((token) =>
      Object.fromEntries([...token.top, token].map(({ text, logprob }) => [text, logprob]))
    ),
    text_offset: scored.map((token) => token.offset),
  };
}
