/** Requests for tests of the scheduler: short, greedy, and different only in what a test says. */

import { GREEDY as PLAIN_GREEDY } from "../../engine/evaluation/hand_session.ts";
import type { SamplingSettings } from "../../engine/span.ts";
import type { Generation, GenerationEvent, GenerationRequest } from "../../router/scheduling/generation.ts";

/** Sparse rows stay as they are. */
export const NO_CORRECTION = { mode: "off", every: "auto", perToken: false } as const;

export const GREEDY: SamplingSettings = { ...PLAIN_GREEDY, seed: 7 };

/** Token ids that differ with `salt` from the first one on, all below 1000. */
export function promptOf(length: number, salt = 0): Uint32Array {
  return Uint32Array.from({ length }, (_, i) => (salt * 131 + i * 7 + 1) % 1000);
}

let requests = 0;

export function generationRequest(overrides: Partial<GenerationRequest> = {}): GenerationRequest {
  return {
    id: "test",
    requestId: `request ${requests++}`,
    choices: 1,
    priority: 0,
    promptTokens: promptOf(10),
    maxTokens: 5,
    sampling: GREEDY,
    attention: { mode: "dense", budget: undefined, heads: "kv_head", correction: NO_CORRECTION },
    stopTokens: [],
    cacheSalt: "",
    traceparent: undefined,
    ...overrides,
  };
}

/** What came out of a generation, up to its end or its error. */
export interface Outcome {
  readonly events: readonly GenerationEvent[];
  readonly tokens: readonly number[];
  readonly reason: "stop" | "length" | undefined;
  /** Code of the error that ended it. */
  readonly code: string | undefined;
}

/** Reads a generation to its end. @param onToken called with the number of tokens so far */
export async function collect(generation: Generation, onToken: (count: number) => void = () => {}): Promise<Outcome> {
  const events: GenerationEvent[] = [];
  const tokens: number[] = [];
  let code: string | undefined;
  try {
    for await (const event of generation) {
      events.push(event);
      if (event.kind !== "token") continue;
      tokens.push(event.token);
      onToken(tokens.length);
    }
  } catch (error) {
    code = (error as { code?: string }).code ?? String(error);
  }
  const last = events.at(-1);
  return { events, tokens, reason: last?.kind === "finished" ? last.reason : undefined, code };
}
