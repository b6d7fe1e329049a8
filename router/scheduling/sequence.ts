/**
 * One generation on its way: its tokens, how much of them is in the KV cache, and what has to be computed next.
 * Knows positions, tokens and pages; knows nothing of other sequences or of the pool that the pages come from.
 */

import { PAGE_TOKENS, type SequenceId, type SequenceOpening, type Span, type SpanResult } from "../../engine/span.ts";
import { checkAnswer } from "./check_answer.ts";
import { attentionAt, type AttentionPolicy } from "./attention_policy.ts";
import { AttentionTally } from "./attention_tally.ts";
import { Correction, type CorrectionReport } from "./correction.ts";
import type { EventQueue } from "./event_queue.ts";
import type { GenerationRequest, GenerationUsage } from "./generation.ts";
import type { ModelInfo } from "../group/group.ts";
import type { PageKey, Prefix } from "./prefix_cache.ts";
import { MASKED_AUDIT_ROWS, type NeededStates, type SequenceMasks } from "./sequence_masks.ts";
import { openingOf } from "./sequence_opening.ts";
import type { SequenceOwner, SequenceParts } from "./sequence_parts.ts";
import { SequenceTokens } from "./sequence_tokens.ts";
import { type DoneWork, type Progress, REBUILD_ROWS, type Work } from "./work.ts";
import { workAfter } from "./work_after.ts";

/** State of one generation; survives preemption and the loss of a group, because all its tokens are here. */
export class Sequence {
  readonly request: GenerationRequest;
  readonly model: ModelInfo;
  readonly events: EventQueue;
  readonly masks: SequenceMasks | undefined;
  readonly arrival: number;
  readonly arrivedAtMs: number = performance.now();
  /** Set by the scheduler that it is with; another one after it was handed over. */
  owner: SequenceOwner | undefined;
  /** Set by the roster: since when it waits, or waited last. */
  queuedAtMs: number = this.arrivedAtMs;
  /** Set by the roster while the sequence runs; a new one for each admission. */
  id: SequenceId | undefined;
  /** Set by the scheduler once a step carried its `SequenceOpening`: from then on it must be released on the workers. */
  opened = false;
  /** Physical pages in order of position, taken and given back by the ledger. */
  pages: number[] = [];
  /** Entry of the group's page map at which its first page lies. */
  pageOffset = 0;
  /** Of `pages`, how many came from the prefix cache at this admission. */
  prefixPages = 0;
  /** Index of the last step that carried a span of it; set by the scheduler. */
  lastStep = 0;
  /** Set by the planner: since when it waits for pages that others hold. */
  blockedAtMs: number | undefined;
  /** Set by the scheduler when the group broke under it: tokens drawn until then. It is not rebuilt twice at one token. */
  replayedAt: number | undefined;
  /** Set by the scheduler: its reader has its end, and it leaves as soon as no step computes it. */
  over = false;
  /** Prompt tokens found in the prefix cache at the first admission; undefined before. */
  cachedTokens: number | undefined;

  readonly #policy: AttentionPolicy;
  readonly #tally: AttentionTally;
  readonly #correction: Correction;
  readonly #tokens: SequenceTokens;
  #cached = 0;
  #exact = 0;
  /** The watermark when it last lost its pages: rows from there on are rebuilt as they were computed at first. */
  #lostExact = 0;
  /** Where a correction ends that was cut for time, and goes on before anything else. */
  #correctingTo: number | undefined;

  constructor(parts: SequenceParts) {
    this.request = parts.request;
    this.model = parts.model;
    this.events = parts.events;
    this.masks = parts.masks;
    this.arrival = parts.arrival;
    this.#policy = parts.policy;
    this.#tally = new AttentionTally(parts.policy, parts.model);
    this.#correction = new Correction(parts.policy.correction, parts.model.cheapCorrections);
    this.#tokens = new SequenceTokens(parts.request, parts.events);
  }

  /** Tokens known: the prompt and what was drawn, drafts included. */
  get length(): number {
    return this.#tokens.length;
  }

  /** Positions whose K/V are in the cache. */
  get cached(): number {
    return this.#cached;
  }

  /** Watermark: positions below it were computed with full attention and never change again. */
  get exact(): number {
    return this.#exact;
  }

  /** Tokens that its reader got. */
  get generated(): number {
    return this.#tokens.generated;
  }

  /** Positions whose rows may come from the prefix cache: later ones must become what they were, sparse rows. */
  get restorable(): number {
    return Math.max(this.request.promptTokens.length, this.#lostExact);
  }

  /** Whether it may not run: its reader is too slow, or it lacks masks. */
  get paused(): boolean {
    return this.events.full || this.lacksMasks;
  }

  /** Whether masks of its next draws are still on their way that no step can begin without. */
  get lacksMasks(): boolean {
    return this.masks?.holdUp(this.#neededStates()) === true;
  }

  /** Asks for the masks of its next draws; undefined: they are there, on their way, or not needed. */
  fetchMasks(): Promise<void> | undefined {
    const needed = this.#neededStates();
    if (this.masks === undefined || this.masks.covers(needed) || this.masks.expects(needed)) return undefined;
    return this.masks.fetch(needed, this.#tokens.answer(needed.to));
  }

  /**
   * What to compute next. Lost rows of drawn tokens are rebuilt by the kernels that made them, sparse ones one by one, and
   * the newest token is always a decode row: a rebuilt sequence goes on bit for bit as if nothing had happened.
   */
  work(): Work {
    const from = this.#cached;
    const prompt = this.request.promptTokens.length;
    if (from < prompt) return { kind: "prefill", from, rows: prompt - from };
    const lost = Math.min(this.length - 1, this.#lostExact) - from;
    if (lost > 0) return { kind: "rebuild", from, rows: Math.min(lost, REBUILD_ROWS) };
    const kind = attentionAt(this.#policy, from);
    return kind === "sparse" && this.#mustCorrect() ? this.#correctionWork() : { kind, from, rows: 1 };
  }

  /** KV rows per layer that the next decode row reads, on average over the layers; of an adaptive one, an estimate. */
  nextContext(): number {
    return this.#tally.expected(this.#cached) / this.model.layers;
  }

  /** Keys of its first full pages of tokens, at most `count`. */
  keys(count: number): readonly PageKey[] {
    return this.#tokens.keys(count);
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

  /** Forgets all that is on the worker; the tokens stay, but for drafts. */
  stop(): void {
    this.#tokens.dropDrafts();
    this.#lostExact = Math.max(this.#lostExact, this.#exact);
    // What it was to verify may be gone with the drafts.
    if (this.#correction.withholdsTokens) this.#correctingTo = undefined;
    this.masks?.drop();
    this.id = undefined;
    this.opened = false;
    this.pages = [];
    this.prefixPages = 0;
    this.#cached = this.#exact = 0;
  }

  /** What makes it known to a worker. */
  open(sequence: SequenceId): SequenceOpening {
    const prefix = this.#tokens.slice(0, this.prefixPages * PAGE_TOKENS);
    return openingOf(this, { sequence, sparse: this.#policy.sparse, prefix, audited: this.#correction.audits });
  }

  /** The span of some work, or of its first rows. @param newPages that it takes */
  span(sequence: SequenceId, { kind, from, rows }: Work, newPages: readonly number[]): Span {
    const end = from + rows;
    const logits = this.#logitsOf(kind, end);
    const base = {
      ...{ sequence, from, tokens: this.#tokens.slice(from, end), logits },
      newPages: Uint32Array.from(newPages),
      ...this.masks?.ofRows(logits, from, end),
    } as const;
    if (kind === "prefill") return { ...base, kind };
    return { ...base, kind: "decode", attention: kind === "sparse" ? "sparse" : "dense" };
  }

  /** What comes after work that a step computes, with a token that it draws; undefined: its result must be known first. */
  workAfter(work: Work): Work | undefined {
    const parts = { request: this.request, policy: this.#policy, correction: this.#correction, tokens: this.#tokens };
    const isCut = this.#correctingTo !== undefined;
    return workAfter({ ...parts, exact: this.#exact, isMasked: this.masks !== undefined, isCut }, work);
  }

  /** Whether work is what comes after what is cached; no row is after a draft that may end the answer. */
  isNext({ kind, from, rows }: Work): boolean {
    if (kind === "correction") return this.#exact === from && this.length === from + rows;
    return this.#cached === from && !(this.#correction.withholdsTokens && this.#tokens.endsWithStopDraft);
  }

  /**
   * Takes in what a span of it gave, and passes tokens to its reader.
   * @throws {EngineError} `invalid_step` when that is not what the span asked for
   */
  advance({ work, span }: DoneWork, result: SpanResult | undefined): Progress {
    checkAnswer(span, result);
    const before = this.generated;
    const correction = work.kind === "correction" ? this.#corrected(work, result) : undefined;
    if (correction === undefined) this.#computed(work, result);
    return { tokens: this.generated - before, correction };
  }

  /** Why it is over, if it is. */
  finishReason(): "stop" | "length" | undefined {
    return this.#tokens.finishReason();
  }

  usage(): GenerationUsage {
    const context = this.generated > 0 ? this.#tokens.confirmed - 1 : this.#cached;
    return {
      promptTokens: this.request.promptTokens.length,
      completionTokens: this.generated,
      cachedTokens: this.cachedTokens ?? 0,
      // The first token is drawn after the prompt.
      attention: {
        ...this.#tally.usage(context, Math.max(0, this.generated - 1)),
        correction: this.#correction.usage(),
      },
    };
  }

  /** A sparse row that is rebuilt draws again when a correction is to compare its logits; the token is known. */
  #logitsOf(kind: Work["kind"], end: number): Span["logits"] {
    if (kind === "correction" && this.#correction.audits) return "audit";
    return end >= this.length || (kind === "sparse" && this.#correction.audits) ? "last" : "none";
  }

  #mustCorrect(): boolean {
    if (this.#correctingTo !== undefined) return true;
    if (this.#cached < this.length - 1) return false;
    if (this.#correction.isDue(this.length - this.#exact, this.length)) return true;
    return this.#correction.withholdsTokens && (this.#tokens.endsWithStopDraft || this.#tokens.endsWithin(1));
  }

  #correctionWork(): Work {
    const most = this.masks !== undefined && this.#correction.audits ? MASKED_AUDIT_ROWS : Infinity;
    return { kind: "correction", from: this.#exact, rows: Math.min(this.#correctionEnd() - this.#exact, most) };
  }

  #correctionEnd(): number {
    return this.#correctingTo ?? (this.#tokens.endsWithStopDraft ? this.length - 1 : this.length);
  }

  /** States of the answer that may be drawn from next: that after the next rows, and those that an audit goes through. */
  #neededStates(): NeededStates {
    const { kind, from, rows } = this.work();
    const { audits } = this.#correction;
    const state = from - this.request.promptTokens.length;
    // Logits that wait for an audit are kept once, as they are.
    const mayFollow = (kind === "dense" || kind === "sparse") && !audits;
    return { from: state + (kind === "correction" && audits ? 1 : rows), to: state + rows, mayFollow };
  }

  #computed({ kind, from, rows }: Work, result: SpanResult | undefined): void {
    const end = from + rows;
    const isRebuilt = end < this.length;
    if (!isRebuilt && (kind === "dense" || kind === "sparse")) this.#tally.row(kind, from, result?.rowsRead);
    if (kind !== "sparse" && from <= this.#exact) this.#exact = end;
    this.#cached = end;
    if (this.generated === 0) {
      const total = this.request.promptTokens.length;
      this.events.push({ kind: "prefill", total, cached: this.cachedTokens ?? 0, processed: end });
    }
    if (result?.token === undefined || isRebuilt) return;
    if (kind === "sparse" && this.#correction.withholdsTokens) this.#tokens.draft(result.token);
    else this.#tokens.draw(result.token, result.logprobs);
  }

  #corrected(work: Work, result: SpanResult | undefined): CorrectionReport {
    const end = this.#correctionEnd();
    const { from } = work;
    // One that ran ahead may have taken a stop token along: nothing is drawn after it.
    const rows = Math.min(work.rows, end - from);
    this.#tally.corrected(from, rows);
    this.#exact = from + rows;
    this.#cached = Math.max(this.#cached, this.#exact);
    if (result?.token !== undefined) this.#tokens.draw(result.token, result.logprobs);
    const { withholdsTokens } = this.#correction;
    const outcome = result?.audit && this.#tokens.audit({ from, rows }, result.audit, withholdsTokens);
    // Length is not state: the rows of drafts that were thrown away are overwritten when their positions recur.
    if (outcome?.overruled !== undefined) {
      this.#exact = this.#cached = outcome.overruled;
      this.masks?.drop();
    }
    const { checks = [], dropped = 0, overruled } = outcome ?? {};
    const isLast = overruled !== undefined || this.#exact >= end;
    this.#correctingTo = isLast ? undefined : end;
    return this.#correction.record({ rows, checks, dropped, isLast }, (rows) => this.owner?.roundMs(rows));
  }
}
