/**
 * One generation on its way: its tokens, how much of them is in the KV cache, and what has to be computed next.
 * Knows positions, tokens and pages; knows nothing of other sequences or of the pool that the pages come from.
 */

import { EngineError } from "../../engine/errors.ts";
import { PAGE_TOKENS, pagesFor } from "../../engine/span.ts";
import type { Open, SequenceId, Span, SpanResult, TokenLogprobs } from "../../engine/span.ts";
import { attentionAt, type AttentionPolicy, rowsReadAt } from "./attention_policy.ts";
import type { RowKind } from "./cost_model.ts";
import type { EventQueue } from "./event_queue.ts";
import type { GenerationRequest, GenerationUsage } from "./generation.ts";
import type { ModelFacts } from "../group/group.ts";
import { type PageKey, pageKey, type Prefix } from "./prefix_cache.ts";

/** Rows that come next: at most `rows` in one span, from the first position that is not cached. */
export interface Work {
  readonly kind: RowKind;
  readonly rows: number;
}

/** Most rows of the matrix–vector family in one span. */
const REBUILD_ROWS = 16;

/** What a sequence is made of; all but the request is decided by the scheduler. */
export interface SequenceParts {
  readonly request: GenerationRequest;
  readonly model: ModelFacts;
  readonly policy: AttentionPolicy;
  readonly events: EventQueue;
  /** Place in the order of arrival. */
  readonly arrival: number;
}

/** State of one generation; survives preemption and the loss of a group, because all its tokens are here. */
export class Sequence {
  readonly request: GenerationRequest;
  readonly model: ModelFacts;
  readonly events: EventQueue;
  readonly arrival: number;
  readonly arrivedAtMs: number = performance.now();
  /** Set by the roster while the sequence runs; a new one for each admission. */
  id: SequenceId | undefined;
  /** Set by the scheduler once a step carried its `Open`: from then on the worker must be told to forget it. */
  opened = false;
  /** Physical pages in order of position, taken and given back by the ledger. */
  pages: number[] = [];
  /** Entry of the group's page map at which its first page lies. */
  pageOffset = 0;
  /** Of `pages`, how many came from the prefix cache at this admission. */
  prefixPages = 0;
  /** Index of the last step that carried a span of it; set by the scheduler. */
  lastStep = 0;
  /** Set by the scheduler when the group broke under it: tokens drawn until then. It is not rebuilt twice at one token. */
  replayedAt: number | undefined;
  /** Set by the scheduler: its reader was told the end, and it leaves as soon as no step computes it. */
  over = false;
  /** Prompt tokens found in the prefix cache at the first admission; undefined before. */
  cachedTokens: number | undefined;

  readonly #policy: AttentionPolicy;
  #tokens: Uint32Array;
  #length: number;
  #cached = 0;
  #exact = 0;
  #keys: PageKey[] = [];
  #decoded = 0;
  #sparseDecoded = 0;
  #rowsRead = 0;
  /** Rows that an adaptive row read, on average over those so far; undefined before the first. */
  #adaptiveRead: number | undefined;

  constructor(parts: SequenceParts) {
    this.request = parts.request;
    this.model = parts.model;
    this.events = parts.events;
    this.arrival = parts.arrival;
    this.#policy = parts.policy;
    this.#length = parts.request.promptTokens.length;
    this.#tokens = new Uint32Array(pagesFor(this.#length + 1) * PAGE_TOKENS);
    this.#tokens.set(parts.request.promptTokens);
  }

  /** Tokens known: the prompt and what was drawn. */
  get length(): number {
    return this.#length;
  }

  /** Positions whose K/V are in the cache. */
  get cached(): number {
    return this.#cached;
  }

  /** Watermark: positions below it were computed with full attention and never change again. */
  get exact(): number {
    return this.#exact;
  }

  get generated(): number {
    return this.#length - this.request.promptTokens.length;
  }

  /** Whether its reader is so slow that it must not run. */
  get paused(): boolean {
    return this.events.full;
  }

  /**
   * What to compute next. Lost rows of drawn tokens are rebuilt by the kernels that made them, and the newest token is
   * always a decode row: a rebuilt dense sequence goes on bit for bit as if nothing had happened.
   */
  work(): Work {
    const prompt = this.request.promptTokens.length;
    if (this.#cached < prompt) return { kind: "prefill", rows: prompt - this.#cached };
    const lost = this.#length - 1 - this.#cached;
    if (lost > 0) return { kind: "rebuild", rows: Math.min(lost, REBUILD_ROWS) };
    return { kind: attentionAt(this.#policy, this.#cached), rows: 1 };
  }

  /** KV rows per layer that the next decode row reads, on average over the layers; of an adaptive one, presumably. */
  nextContext(): number {
    const isSparse = attentionAt(this.#policy, this.#cached) === "sparse";
    const presumed = isSparse ? this.#adaptiveRead : undefined;
    return (presumed ?? rowsReadAt(this.#policy, this.model, this.#cached)) / this.model.layers;
  }

  /** Keys of its first full pages of tokens, at most `count`. */
  keys(count: number): readonly PageKey[] {
    const full = Math.min(count, Math.floor(this.#length / PAGE_TOKENS));
    for (let i = this.#keys.length; i < full; i++) {
      this.#keys.push(pageKey(this.#tokens.subarray(i * PAGE_TOKENS, (i + 1) * PAGE_TOKENS)));
    }
    return this.#keys.slice(0, full);
  }

  /** Starts over with what the prefix cache had. @param prefix full, exact pages of its first tokens, or none */
  start(id: SequenceId, { offset, pages }: Prefix): void {
    this.id = id;
    this.pageOffset = offset;
    this.pages = [...pages];
    this.prefixPages = pages.length;
    this.#cached = this.#exact = pages.length * PAGE_TOKENS;
    this.cachedTokens ??= this.#cached;
  }

  /** Forgets all that is on the worker; the tokens stay. */
  stop(): void {
    this.id = undefined;
    this.opened = false;
    this.pages = [];
    this.prefixPages = 0;
    this.#cached = this.#exact = 0;
  }

  /** How the worker gets to know it. */
  open(sequence: SequenceId): Open {
    const { promptTokens, sampling } = this.request;
    const prefix = this.prefixPages * PAGE_TOKENS;
    // Penalties count the tokens of the prompt (repetition) or of the output (the others), which a rebuilt sequence may
    // find in the cache too.
    const penalizesOutput = sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0;
    const needed = sampling.repetitionPenalty !== 1 || (penalizesOutput && prefix > promptTokens.length);
    return {
      sequence,
      sampling,
      sparse: this.#policy.sparse,
      promptTokens: promptTokens.length,
      pageOffset: this.pageOffset,
      prefixPages: Uint32Array.from(this.pages.slice(0, this.prefixPages)),
      prefixTokens: needed ? this.#tokens.slice(0, prefix) : new Uint32Array(),
    };
  }

  /** The span of its next `rows` rows, all of them of the kind that `work` tells. */
  span(sequence: SequenceId, rows: number, newPages: readonly number[]): Span {
    const from = this.#cached;
    const { kind } = this.work();
    const base = {
      sequence,
      from,
      tokens: this.#tokens.slice(from, from + rows),
      logits: from + rows === this.#length ? "last" : "none",
      newPages: Uint32Array.from(newPages),
    } as const;
    if (kind === "prefill") return { ...base, kind };
    return { ...base, kind: "decode", attention: kind === "sparse" ? "sparse" : "dense" };
  }

  /**
   * Takes in what a span of it gave; tells its reader.
   * @throws {EngineError} `invalid_step` when that is not what the span asked for
   */
  advance(span: Span, result: SpanResult | undefined): void {
    checkAnswer(span, result);
    const { kind } = this.work();
    if (kind === "dense" || kind === "sparse") this.#countDecoded(kind, result?.rowsRead);
    const end = span.from + span.tokens.length;
    if (kind !== "sparse" && span.from <= this.#exact) this.#exact = end;
    this.#cached = end;
    if (this.generated === 0) {
      const total = this.request.promptTokens.length;
      this.events.push({ kind: "prefill", total, cached: this.cachedTokens ?? 0, processed: end });
    }
    if (result?.token !== undefined) this.#append(result.token, result.logprobs);
  }

  /** Why it is over, if it is. */
  finishReason(): "stop" | "length" | undefined {
    const last = this.#tokens[this.#length - 1];
    if (this.generated > 0 && last !== undefined && this.request.stopTokens.includes(last)) return "stop";
    return this.generated >= this.request.maxTokens ? "length" : undefined;
  }

  usage(): GenerationUsage {
    const sparse = this.#sparseDecoded > 0;
    const { budget, coverage } = this.#policy.sparse;
    return {
      promptTokens: this.request.promptTokens.length,
      completionTokens: this.generated,
      cachedTokens: this.cachedTokens ?? 0,
      attention: {
        mode: sparse ? "sparse" : "dense",
        budget: sparse ? (coverage === undefined ? budget : "auto") : undefined,
        ...(sparse && coverage !== undefined && { coverage }),
        selectLayers: sparse ? this.model.selectLayers : [],
        context: Math.max(this.#cached, this.generated > 0 ? this.#length - 1 : 0),
        rowsReadPerToken: this.#decoded === 0 ? 0 : this.#rowsRead / this.#decoded,
      },
    };
  }

  /** @param told how much an adaptive row has really read */
  #countDecoded(kind: "dense" | "sparse", told: number | undefined): void {
    this.#decoded++;
    if (kind === "sparse") this.#sparseDecoded++;
    this.#rowsRead += told ?? rowsReadAt(this.#policy, this.model, this.#cached);
    if (told === undefined) return;
    const before = this.#adaptiveRead ?? told;
    this.#adaptiveRead = before + (told - before) / this.#sparseDecoded;
  }

  #append(token: number, logprobs: TokenLogprobs | undefined): void {
    if (this.#length === this.#tokens.length) {
      const grown = new Uint32Array(2 * this.#length);
      grown.set(this.#tokens);
      this.#tokens = grown;
    }
    this.#tokens[this.#length++] = token;
    this.events.push({ kind: "token", token, logprobs });
  }
}

function checkAnswer({ sequence, logits }: Span, result: SpanResult | undefined): void {
  const drawn = result?.token !== undefined;
  if (result?.sequence === sequence && drawn === (logits !== "none")) return;
  const answer = result === undefined ? "nothing" : `sequence ${result.sequence} and token ${result.token}`;
  throw new EngineError(
    "invalid_step",
    `Cannot take the result of sequence ${sequence}: the group answered ${answer} to logits ${logits}`,
  );
}
