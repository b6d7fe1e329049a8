/**
 * Perplexity of held-out text after a context: dense with prefilled rows, or as decoding would see it, row by row under
 * sparse attention.
 */

import type { SessionHost } from "./hand_session.ts";
import type { SparseSettings } from "../span.ts";
import { mean } from "./mean.ts";

/** A run of tokens: the first `context` are given, of the rest each is scored but the first. */
export interface Window {
  readonly tokens: Uint32Array;
  readonly context: number;
}

/**
 * Mean negative log-likelihood (natural) of a window's scored tokens.
 * @param sparse undefined: all rows are prefilled densely; else the scored rows are decoded one by one
 */
export async function windowNll(
  host: SessionHost,
  { tokens, context }: Window,
  sparse: SparseSettings | undefined,
): Promise<number> {
  const session = host.open(sparse && { sparse });
  try {
    if (sparse === undefined) {
      const { scores } = await session.prefill(tokens, "all");
      return -mean(scores?.logprob.subarray(context) ?? new Float32Array(0));
    }
    await session.prefill(tokens.subarray(0, context), "none");
    const logprobs = new Float32Array(tokens.length - context - 1);
    for (let i = 0; i < logprobs.length; i++) {
      const [token = 0, next = 0] = tokens.subarray(context + i, context + i + 2);
      logprobs[i] = (await session.scoreNext(token, next, "sparse")).logprob;
    }
    return -mean(logprobs);
  } finally {
    await session.close();
  }
}
