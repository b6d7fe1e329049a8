/**
 * One admitted request while it runs: its generations, as one stream of answer pieces, and how it ended.
 * Owns the generations and cancels them; knows nothing of wire formats.
 */

import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import { type AnswerPiece, readAnswer } from "./answer.ts";
import { describeError, errorCode } from "../errors.ts";
import type { Generation, GenerationUsage, Generator } from "../scheduling/generation.ts";
import { type Arrival, interleave } from "./interleave.ts";
import type { PreparedGeneration } from "../text/prepare.ts";
import type { RequestObservation, RequestOutcome, RequestPhase } from "./request_observer.ts";
import { type AnswerUsage, sumUsages } from "./usage.ts";

/** What a run is made of. */
export interface RunOptions {
  /** The id the client sees. */
  readonly id: string;
  readonly prepared: PreparedGeneration;
  readonly generator: Generator;
  readonly tokenizer: Tokenizer;
  readonly observation: RequestObservation;
  /** Fires when the client is gone. */
  readonly signal: AbortSignal;
}

/** All choices of one request. */
export class GenerationRun {
  readonly #options: RunOptions;
  readonly #generations: readonly Generation[];
  /** By choice, so far. */
  readonly #reasoningTokens: number[] = [];
  readonly #ends = new Map<number, { readonly reason: string; readonly usage: GenerationUsage }>();
  readonly #onAbort = () => this.cancel();
  #phase: RequestPhase = "prefill";
  #cancelled = false;
  #ended = false;

  /**
   * Queues all generations, or none.
   * @throws {RequestError} as `Generator.generate` does
   */
  constructor(options: RunOptions) {
    this.#options = options;
    this.#generations = startAll(options);
    options.signal.addEventListener("abort", this.#onAbort);
    if (options.signal.aborted) this.cancel();
  }

  /** Whether the client left before the end. */
  get cancelled(): boolean {
    return this.#cancelled;
  }

  /** Of all choices, once the pieces are read. */
  get usage(): AnswerUsage {
    const usages = this.#generations.map((generation, index) => this.#ends.get(index)?.usage ?? generation.usage());
    const reasoningTokens = this.#reasoningTokens.reduce((sum, tokens) => sum + tokens, 0);
    return { ...sumUsages(usages, this.#options.prepared.n), reasoningTokens };
  }

  /**
   * The pieces of all choices, in the order they come. Ends early when cancelled.
   * @throws {CodedError} the first failure of a generation
   */
  async *pieces(): AsyncGenerator<Arrival<AnswerPiece>> {
    const { prepared, tokenizer, observation } = this.#options;
    const answers = this.#generations.map((generation) => readAnswer(generation, { ...prepared, tokenizer }));
    for await (const arrival of interleave(answers)) {
      const { index, value } = arrival;
      if (value.kind === "text" && this.#phase === "prefill") {
        this.#phase = "decode";
        observation.firstToken();
      }
      if (value.kind !== "prefill") this.#reasoningTokens[index] = value.reasoningTokens;
      if (value.kind === "end") this.#ends.set(index, value);
      yield arrival;
    }
    if (!this.#cancelled && this.#ends.size < answers.length) {
      throw new Error(`${answers.length - this.#ends.size} generations ended without a reason`);
    }
  }

  /** The client is gone: frees everything. Harmless twice, and after the end. */
  cancel(): void {
    if (this.#ended) return;
    this.#cancelled = true;
    for (const generation of this.#generations) generation.cancel();
  }

  /** Something failed: reports it to the observer, once. */
  fail(error: unknown): void {
    this.#end({ kind: "failed", code: errorCode(error), status: describeError(error).status });
  }

  /** The reader has left: frees what still runs, and reports how it ended unless that was reported. */
  close(): void {
    const reasons = [...this.#ends.values()].map((end) => end.reason);
    const isWhole = reasons.length === this.#generations.length;
    this.#end(
      isWhole && !this.#cancelled
        ? { kind: "finished", reasons, usage: this.usage }
        : { kind: "disconnected", phase: this.#phase },
    );
  }

  #end(outcome: RequestOutcome): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    for (const generation of this.#generations) generation.cancel();
    this.#options.observation.ended(outcome);
  }
}

/** A request is served whole or not at all: when one prompt is refused, those before it are cancelled. */
function startAll({ id, prepared, generator, observation }: RunOptions): Generation[] {
  const { prompts, n, sampling } = prepared;
  const generations: Generation[] = [];
  const isSingle = prompts.length * n === 1;
  try {
    for (const prompt of prompts) {
      for (let i = 0; i < n; i++) {
        generations.push(generator.generate({
          id: isSingle ? id : `${id}-${generations.length}`,
          requestId: id,
          choices: prompts.length * n,
          priority: prepared.priority,
          promptTokens: prompt.tokens,
          maxTokens: prompt.maxTokens,
          isMaxTokensOpen: prompt.isMaxTokensOpen,
          sampling: { ...sampling, seed: (sampling.seed + i) % 2 ** 32 },
          attention: prepared.attention,
          grammar: prepared.grammar,
          stopTokens: prepared.stopTokens,
          cacheSalt: prepared.cacheSalt,
          traceparent: observation.traceparent,
        }));
      }
    }
    return generations;
  } catch (error) {
    for (const generation of generations) generation.cancel();
    throw error;
  }
}
