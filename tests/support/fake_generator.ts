/**
 * A generator without a model: answers with tokens from a script, obeys limits and stop tokens, and counts what was
 * asked, cancelled and left running. Knows the contract of `router/scheduling/generation.ts`; knows nothing of HTTP.
 */

import type { SamplingSettings, TokenLogprobs } from "../../engine/span.ts";
import { RequestError } from "../../router/errors.ts";
import type {
  Generation,
  GenerationEvent,
  GenerationRequest,
  GenerationUsage,
  Generator,
} from "../../router/scheduling/generation.ts";

/** What the fake does with the next requests. */
export interface FakeScript {
  /** Drawn one after the other, again from the start when used up. */
  readonly tokens: readonly number[];
  /** Positions prefilled at each of the events before the first token. @default none */
  readonly prefill?: readonly number[];
  /** Time between tokens. @default none */
  readonly everyMs?: number;
  /** After so many tokens nothing comes until the generation is cancelled. */
  readonly stallAfter?: number;
  /** After so many tokens this is thrown. */
  readonly failAfter?: { readonly tokens: number; readonly error: Error };
  /** Thrown at admission, by the n-th call. */
  readonly refuse?: { readonly call: number; readonly error: Error };
}

/** Runs one script for all requests. */
export class FakeGenerator implements Generator {
  script: FakeScript;
  readonly requests: GenerationRequest[] = [];
  readonly generations: FakeGeneration[] = [];
  readonly #contextTokens: number;

  /** @param contextTokens that prompt and answer may have together */
  constructor(script: FakeScript, contextTokens = Infinity) {
    this.script = script;
    this.#contextTokens = contextTokens;
  }

  /** Generations neither finished, failed nor cancelled. */
  get live(): number {
    return this.generations.filter((generation) => !generation.over).length;
  }

  generate(request: GenerationRequest): Generation {
    const { refuse } = this.script;
    if (refuse !== undefined && this.requests.length === refuse.call) throw refuse.error;
    this.#checkFits(request);
    const generation = new FakeGeneration(request, this.script);
    this.requests.push(request);
    this.generations.push(generation);
    return generation;
  }

  #checkFits({ promptTokens: { length }, maxTokens }: GenerationRequest): void {
    if (length === 0) throw new RequestError("invalid_request", "Cannot generate: no prompt");
    if (maxTokens < 1) throw new RequestError("invalid_request", `Cannot generate: ${maxTokens} tokens are wanted`);
    if (length + maxTokens <= this.#contextTokens) return;
    const numbers = `${length} prompt tokens and ${maxTokens} to generate exceed ${this.#contextTokens}`;
    throw new RequestError("context_length_exceeded", `Cannot generate: ${numbers}`);
  }
}

/** One scripted sequence. */
export class FakeGeneration implements Generation {
  readonly #request: GenerationRequest;
  readonly #script: FakeScript;
  readonly #cancel = Promise.withResolvers<void>();
  #drawn = 0;
  #over = false;
  #isRead = false;
  #cancelled = false;

  constructor(request: GenerationRequest, script: FakeScript) {
    this.#request = request;
    this.#script = script;
  }

  get over(): boolean {
    return this.#over;
  }

  /** Cancelled before its end. */
  get cancelled(): boolean {
    return this.#cancelled;
  }

  usage(): GenerationUsage {
    return {
      promptTokens: this.#request.promptTokens.length,
      completionTokens: this.#drawn,
      cachedTokens: 2,
      attention: {
        mode: "sparse",
        ...this.#bounds(),
        selectLayers: [2, 6],
        context: this.#request.promptTokens.length + this.#drawn,
        rowsReadPerToken: 300,
        correction: undefined,
      },
    };
  }

  #bounds(): Pick<GenerationUsage["attention"], "budget" | "coverage"> {
    const { budget = 64 } = this.#request.attention;
    return typeof budget === "number" ? { budget } : { budget: "auto", coverage: budget.coverage };
  }

  cancel(): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancelled = true;
    this.#cancel.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<GenerationEvent> {
    if (this.#isRead) return;
    this.#isRead = true;
    try {
      for await (const event of this.#events()) {
        if (this.#cancelled) return;
        yield event;
      }
      this.#over = true;
    } catch (error) {
      this.#over = true;
      throw error;
    } finally {
      this.cancel();
    }
  }

  async *#events(): AsyncGenerator<GenerationEvent> {
    const { promptTokens, maxTokens, stopTokens, sampling } = this.#request;
    const { tokens, prefill = [], everyMs, stallAfter, failAfter } = this.#script;
    const total = promptTokens.length;
    for (const processed of prefill) yield { kind: "prefill", total, cached: 2, processed };
    for (;;) {
      if (this.#drawn === failAfter?.tokens) throw failAfter.error;
      if (this.#drawn === stallAfter) await this.#cancel.promise;
      // A real one waits for the GPU here.
      await (everyMs === undefined ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, everyMs)));
      const token = tokens[this.#drawn % tokens.length] ?? 0;
      this.#drawn++;
      yield { kind: "token", token, logprobs: logprobsOf(token, sampling) };
      const stopped = stopTokens.includes(token);
      if (!stopped && this.#drawn < maxTokens) continue;
      this.#over = true;
      yield { kind: "finished", reason: stopped ? "stop" : "length", usage: this.usage() };
      return;
    }
  }
}

/** As many as were asked for: the token is certain. */
function logprobsOf(token: number, { topLogprobs }: SamplingSettings): TokenLogprobs | undefined {
  if (topLogprobs === undefined) return undefined;
  const entry = (_: unknown, i: number) => ({ token: token + i, logprob: i === 0 ? -0.25 : -Infinity });
  return { logprob: -0.25, top: Array.from({ length: topLogprobs }, entry) };
}
