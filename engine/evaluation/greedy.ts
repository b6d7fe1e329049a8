/** Greedy answers to conversations whose tokens are known. */

import { drawnToken } from "../span.ts";
import type { SessionHost } from "./hand_session.ts";

/** A rendered prompt and the tokens that must follow it. */
export interface GreedyCase {
  readonly id: string;
  readonly prompt: Uint32Array;
  readonly answer: Uint32Array;
}

/** Whether dense greedy decoding gives exactly the answer, its stop token included. */
export async function greedyMatches(
  host: SessionHost,
  { prompt, answer }: GreedyCase,
  stop: readonly number[],
): Promise<boolean> {
  const session = host.open();
  try {
    const first = drawnToken(await session.prefill(prompt));
    const given = await session.generate(first, { maxTokens: answer.length, stop });
    return given.length === answer.length && given.every((id, i) => id === answer[i]);
  } finally {
    await session.close();
  }
}
