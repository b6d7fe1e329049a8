/**
 * Sequences driven directly, without a router: for evaluation, calibration, benchmarks and tests. Stands in for the
 * router: hands out physical pages, shares full exact ones, numbers steps. Knows spans; knows nothing of HTTP.
 */

import { EngineError } from "../errors.ts";
import type { EngineInfo } from "../engine_info.ts";
import { rowAttention } from "../layer_plan.ts";
import { PageMap } from "../page_map.ts";
import {
  drawnToken,
  PAGE_TOKENS,
  pagesFor,
  type SamplingSettings,
  type SequenceId,
  type Span,
  type SpanResult,
  type SparseSettings,
  type Step,
  type StepResult,
} from "../span.ts";

/** Plain argmax: what evaluation and tests mostly want. */
export const GREEDY: SamplingSettings = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: [],
  seed: 0,
  minTokens: 0,
  suppressed: [],
  topLogprobs: undefined,
};

/** How a session samples and attends. */
export interface SessionOptions {
  /** @default GREEDY */
  readonly sampling?: SamplingSettings;
  /** @default a budget that no context exceeds: everything is dense */
  readonly sparse?: SparseSettings;
  /** Length of the prompt, where output indices start; only penalties and seeded draws depend on it. @default 0 */
  readonly promptTokens?: number;
  /** Entry of the page map at which the sequence starts; shared pages keep that of their first owner. @default 0 */
  readonly pageOffset?: number;
  /** Whether audit spans can say how far the sparse rows were off. @default false */
  readonly audited?: boolean;
}

/** A span without what the session knows itself; it starts at `from`, by default at the end. */
export type HandSpan =
  & {
    readonly tokens: Uint32Array;
    readonly logits: Span["logits"];
    readonly next?: number;
    readonly from?: number;
    readonly masks?: Uint32Array;
  }
  & Pick<Span, "reportsSelection" | "sampled" | "masksFollow">
  & ({ readonly kind: "prefill" } | { readonly kind: "decode"; readonly attention: "dense" | "sparse" });

const ALWAYS_DENSE: SparseSettings = { budget: 2 ** 30, heads: "kv_head" };

/** What sessions run on: an engine in this process, or a worker. */
export interface SessionRunner {
  readonly info: EngineInfo;
  run(step: Step): Promise<StepResult>;
}

/** How long a step may take that no router plans: long prompts on a software adapter take minutes. */
const STEP_DEADLINE_MS = 3_600_000;

/** Opens sessions on a runner that no router uses. */
export class SessionHost {
  readonly runner: SessionRunner;
  readonly map: PageMap;
  /** Of each worker. */
  readonly #freePages: readonly number[][];
  readonly #users = new Map<number, number>();
  #nextSequence: SequenceId;
  #nextStep = 1;

  /**
   * @param map of the runner's workers @default one worker
   * @param firstSequence the others follow it @default 1
   */
  constructor(
    runner: SessionRunner,
    map: PageMap = new PageMap([runner.info.kvPages]),
    firstSequence: SequenceId = 1,
  ) {
    this.runner = runner;
    this.#nextSequence = firstSequence;
    this.map = map;
    this.#freePages = Array.from({ length: map.workers }, (_, worker) => {
      const [base, end] = [map.base(worker), map.base(worker + 1)];
      return Array.from({ length: end - base }, (_, i) => end - 1 - i);
    });
  }

  /** An empty sequence. */
  open(options: SessionOptions = {}): Session {
    return new Session(this, this.#nextSequence++, { options, pages: [], length: 0 });
  }

  /** A sequence that starts with the full pages of another one's first `tokens` positions, as far as there are any. */
  share(other: Session, tokens: number, options: SessionOptions = {}): Session {
    const pages = other.pages.slice(0, Math.floor(Math.min(tokens, other.length) / PAGE_TOKENS));
    return this.openOn(pages, { ...options, pageOffset: other.pageOffset });
  }

  /**
   * A sequence that starts with full pages of others; it uses them too, so that they outlive their first owners.
   * @param pages in order of position, each on the worker that owns its place
   */
  openOn(pages: readonly number[], options: SessionOptions = {}): Session {
    for (const page of pages) this.#users.set(page, (this.#users.get(page) ?? 0) + 1);
    return new Session(this, this.#nextSequence++, { options, pages, length: pages.length * PAGE_TOKENS });
  }

  /** Runs spans of several sessions in one step. */
  async run(step: Omit<Step, "index" | "deadlineMs">): Promise<StepResult> {
    return await this.runner.run({ ...step, index: this.#nextStep++, deadlineMs: STEP_DEADLINE_MS });
  }

  /**
   * Takes pages for the places [from, to) of a sequence, each on the worker that owns its place.
   * @throws {EngineError} `kv_exhausted`
   */
  takePages(pageOffset: number, from: number, to: number): number[] {
    const pages: number[] = [];
    for (let place = from; place < to; place++) {
      const owner = this.map.owner(pageOffset, place);
      const page = this.#freePages[owner]?.pop();
      if (page === undefined) {
        this.returnPages(pages);
        throw new EngineError("kv_exhausted", `Cannot take ${to - from} pages: worker ${owner} has none free`);
      }
      this.#users.set(page, 1);
      pages.push(page);
    }
    return pages;
  }

  /** Gives up one use of each page. */
  returnPages(pages: readonly number[]): void {
    for (const page of pages) {
      const users = (this.#users.get(page) ?? 1) - 1;
      this.#users.set(page, users);
      if (users > 0) continue;
      const owner = this.#freePages.findIndex((_, worker) => this.map.isOn(worker, page));
      this.#freePages[owner]?.push(page);
    }
  }
}

/** One sequence. */
export class Session {
  readonly sequence: SequenceId;
  readonly #host: SessionHost;
  readonly #options: SessionOptions;
  readonly #pages: number[];
  readonly #prefixPages: Uint32Array;
  #length: number;
  #opened = false;

  /** Made by `SessionHost`. */
  constructor(
    host: SessionHost,
    sequence: SequenceId,
    { options, pages, length }: { options: SessionOptions; pages: readonly number[]; length: number },
  ) {
    this.sequence = sequence;
    this.#host = host;
    this.#options = options;
    this.#pages = [...pages];
    this.#prefixPages = Uint32Array.from(pages);
    this.#length = length;
  }

  /** Positions in the cache. */
  get length(): number {
    return this.#length;
  }

  /** Entry of the page map at which it starts. */
  get pageOffset(): number {
    return this.#options.pageOffset ?? 0;
  }

  get pages(): readonly number[] {
    return this.#pages;
  }

  /** Appends tokens with tiled products. */
  async prefill(tokens: ArrayLike<number>, logits: Span["logits"] = "last"): Promise<SpanResult> {
    return await this.run({ kind: "prefill", tokens: Uint32Array.from(tokens), logits });
  }

  /**
   * Appends one token, and draws the next; sparse while the context exceeds the session's budget.
   * @param attention `sparse` is overruled by a context within the budget
   */
  async decode(
    token: number,
    attention: "dense" | "sparse" = "dense",
    logits: Span["logits"] = "last",
  ): Promise<SpanResult> {
    const allowed = attention === "sparse" ? rowAttention(this.sparse, this.#length) : "dense";
    return await this.run({ kind: "decode", attention: allowed, tokens: Uint32Array.of(token), logits });
  }

  /** Appends one token as `decode` does, and scores the token that is known to follow. */
  async scoreNext(
    token: number,
    next: number,
    attention: "dense" | "sparse",
  ): Promise<{ logprob: number; argmax: number }> {
    const allowed = attention === "sparse" ? rowAttention(this.sparse, this.#length) : "dense";
    const tokens = Uint32Array.of(token);
    const { scores } = await this.run({ kind: "decode", attention: allowed, tokens, next, logits: "all" });
    const [logprob, argmax] = [scores?.logprob[0], scores?.argmax[0]];
    if (logprob === undefined || argmax === undefined) {
      throw new EngineError("invalid_step", `Cannot score token ${next}: the step gave no scores`);
    }
    return { logprob, argmax };
  }

  /** Draws tokens until one of `stop` or until there are `maxTokens`; the stop token is part of the result. */
  async generate(
    first: number,
    { attention = "dense", maxTokens, stop = [] }: {
      attention?: "dense" | "sparse";
      maxTokens: number;
      stop?: readonly number[];
    },
  ): Promise<number[]> {
    const tokens = [first];
    for (let newest = first; tokens.length < maxTokens && !stop.includes(newest); tokens.push(newest)) {
      newest = drawnToken(await this.decode(newest, attention));
    }
    return tokens;
  }

  /** Runs one span. When it is refused or fails, the session is as it was before. */
  async run(span: HandSpan): Promise<SpanResult> {
    const before = { opened: this.#opened, length: this.#length, pages: this.#pages.length };
    const step = this.plan(span);
    try {
      const [own] = (await this.#host.run(step)).spans;
      if (own === undefined) throw new EngineError("invalid_step", "Cannot read a step's result: it has no span");
      return own;
    } catch (error) {
      this.#opened = before.opened;
      this.#length = before.length;
      this.#host.returnPages(this.#pages.splice(before.pages));
      throw error;
    }
  }

  /** The step of one span, its pages taken; merge several to run sessions together. */
  plan(span: HandSpan): Omit<Step, "index" | "deadlineMs"> {
    const from = span.from ?? this.#length;
    const end = from + span.tokens.length;
    const { pageOffset } = this;
    const newPages = this.#host.takePages(pageOffset, this.#pages.length, pagesFor(end));
    this.#pages.push(...newPages);
    const open = this.#opened ? [] : [{
      sequence: this.sequence,
      sampling: this.#options.sampling ?? GREEDY,
      sparse: this.sparse,
      promptTokens: this.#options.promptTokens ?? 0,
      pageOffset,
      prefixPages: this.#prefixPages,
      prefixTokens: new Uint32Array(0),
      audited: this.#options.audited ?? false,
    }];
    this.#opened = true;
    this.#length = end;
    return {
      open,
      release: [],
      spans: [{ ...span, sequence: this.sequence, from, newPages: Uint32Array.from(newPages) }],
    };
  }

  /** Forgets the sequence; its pages are free when no other shares them. */
  async close(): Promise<void> {
    if (this.#opened) await this.#host.run({ open: [], release: [this.sequence], spans: [] });
    this.#opened = false;
    this.#host.returnPages(this.#pages.splice(0));
  }

  get sparse(): SparseSettings {
    return this.#options.sparse ?? ALWAYS_DENSE;
  }
}
