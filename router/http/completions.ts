/** `POST /v1/completions`: the shapes of its answers. Knows the wire format; knows nothing of how answers arise. */

import type { ScoredToken } from "./answer.ts";
import { choiceEndpoint } from "./choice_stream.ts";
import type { WireFormat } from "./wire_format.ts";

/** Text completions. */
export const COMPLETION_FORMAT: WireFormat = choiceEndpoint({
  operation: "text_completion",
  job: "completion",
  idPrefix: "cmpl-",
  object: { whole: "text_completion", chunk: "text_completion" },

  whole: ({ index, text, scored, reason, stopReason }, echo) => ({
    index,
    text: (echo ?? "") + text,
    logprobs: logprobs(scored),
    finish_reason: reason,
    stop_reason: stopReason ?? null,
  }),

  open: (index, echo) => ({
    opening: echo === undefined ? undefined : { index, text: echo, logprobs: null, finish_reason: null },
    silent: { index, text: "", logprobs: null, finish_reason: null },
    piece: ({ text }, scored) =>
      text === "" && scored === undefined
        ? []
        : [{ index, text, logprobs: logprobs(scored && [scored]), finish_reason: null }],
    closing: ({ reason, stopReason }) => ({
      index,
      text: "",
      logprobs: null,
      finish_reason: reason,
      stop_reason: stopReason ?? null,
    }),
  }),
});

/** Several tokens may look alike, as parts of characters do: then each is named by its id, as vLLM does on demand. */
function topOf(token: ScoredToken): Readonly<Record<string, number>> {
  const tokens = new Map([...token.top, token].map((each) => [each.id, each] as const));
  const texts = [...tokens.values()].map(({ text }) => text);
  return Object.fromEntries(
    Array.from(tokens.values(), ({ id, text, logprob }) => [
      texts.indexOf(text) === texts.lastIndexOf(text) ? text : `token_id:${id}`,
      logprob,
    ]),
  );
}

function logprobs(scored: readonly ScoredToken[] | undefined) {
  if (scored === undefined) return null;
  return {
    tokens: scored.map((token) => token.text),
    token_logprobs: scored.map((token) => token.logprob),
    // The drawn token is always among them, so there may be one more than asked for.
    top_logprobs: scored.map((token) => topOf(token)),
    text_offset: scored.map((token) => token.offset),
  };
}
