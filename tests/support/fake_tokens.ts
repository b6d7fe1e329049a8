/** The tokens that a fake group draws: each depends on every token before it, on the seed and on where the output begins. */

import type { SequenceOpening, SpanResult } from "../../engine/span.ts";
import type { GenerationRequest } from "../../router/scheduling/generation.ts";
import { fakeModel } from "./fake_model.ts";

export const VOCABULARY = fakeModel().vocabSize;

/** The hash of no tokens. */
export const CHAIN_START = 0x811c9dc5;

/** The token drawn after `chain`; depends on the seed and on where the output begins, as in the real sampler. */
export function draw(
  chain: number,
  { sampling, promptTokens }: Pick<SequenceOpening, "sampling" | "promptTokens">,
): number {
  return extend(extend(chain, sampling.seed), promptTokens) % VOCABULARY;
}

/** The hash with one token more. */
export function extend(chain: number, token: number): number {
  let hash = Math.imul(chain ^ (token + 0x9e3779b9), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return (hash ^ (hash >>> 13)) >>> 0;
}

/** What a request gives when it runs alone: its tokens, and why it ends. */
export function runAlone(request: GenerationRequest): { tokens: number[]; reason: "stop" | "length" } {
  const open = { sampling: request.sampling, promptTokens: request.promptTokens.length };
  let chain = request.promptTokens.reduce(extend, CHAIN_START);
  const tokens: number[] = [];
  while (tokens.length < request.maxTokens) {
    const token = draw(chain, open);
    tokens.push(token);
    if (request.stopTokens.includes(token)) return { tokens, reason: "stop" };
    chain = extend(chain, token);
  }
  return { tokens, reason: "length" };
}

/** Log-probabilities of a drawn token, if its sequence asked for any: it is the likeliest, and those after it follow. */
export function logprobsOf(
  token: number,
  { sampling: { topLogprobs } }: SequenceOpening,
): Pick<SpanResult, "logprobs"> {
  if (topLogprobs === undefined) return {};
  const top = Array.from({ length: topLogprobs }, (_, i) => ({ token: (token + i) % VOCABULARY, logprob: -0.5 - i }));
  return { logprobs: { logprob: -0.5, top } };
}
