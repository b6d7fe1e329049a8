/**
 * A group in memory that is as strict as a real worker should be: it knows the content of every physical page, refuses
 * any step that contradicts it, and draws tokens that depend on every token a sequence really sees through its pages.
 * Knows steps and pages; computes no attention.
 */

import assert from "node:assert/strict";
import { checkStep } from "../../engine/check_step.ts";
import { EngineError } from "../../engine/errors.ts";
import { SLOTS } from "../../engine/kv/kv_slice.ts";
import { PageMap } from "../../engine/page_map.ts";
import type { LateMasks, SequenceId, SequenceOpening, Span, SpanResult } from "../../engine/span.ts";
import { PAGE_TOKENS, pagesFor, type SpanAudit, type Step, type StepResult } from "../../engine/span.ts";
import { RequestError } from "../../router/errors.ts";
import type { Group, GroupState, ModelInfo } from "../../router/group/group.ts";
import type { FakeGroupOptions } from "./fake_group_options.ts";
import { fakeModel } from "./fake_model.ts";
import {
  drawnBy,
  type FakeSequence,
  faultOfPrefixTokens,
  openSequence,
  type PageContent,
  told,
  withLateMasks,
} from "./fake_span.ts";
import { CHAIN_START, draw, extend, logprobsOf, VOCABULARY } from "./fake_tokens.ts";

const NEVER = false;

/** See the top of this file. */
export class FakeGroup implements Group {
  /** Every step that ran, in order. */
  readonly steps: Step[] = [];
  readonly traceparents: (readonly string[])[] = [];
  /** Invariants that steps broke, in words; a good scheduler leaves it empty. */
  readonly complaints: string[] = [];
  readonly stepsInFlight: number;
  state: GroupState;
  readonly #info: Partial<ModelInfo>;
  #model: ModelInfo;
  #map: PageMap;
  readonly #stepMs: (step: Step) => number;
  readonly #errs: (position: number, open: SequenceOpening) => boolean;
  readonly #listeners: ((state: GroupState) => void)[] = [];
  readonly #sequences = new Map<SequenceId, FakeSequence>();
  readonly #contents = new Map<number, PageContent>();
  readonly #everOpened = new Set<SequenceId>();
  /** What the last step drew. */
  #drawn: ReadonlyMap<SequenceId, number> = new Map();
  #epoch = 1;
  #lastIndex = 0;
  #busy = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #refusal: { readonly error: Error; readonly late: boolean } | undefined;
  #refusals = 0;
  /** While set, steps wait for it. */
  #gate: Promise<void> | undefined;
  #ungate: (() => void) | undefined;

  constructor(options: FakeGroupOptions = {}) {
    this.stepsInFlight = options.stepsInFlight ?? 1;
    this.#info = options.model ?? {};
    this.#model = fakeModel(this.#info);
    this.#map = new PageMap(this.#model.slices);
    this.#stepMs = options.stepMs ?? (() => 1);
    this.#errs = options.errs ?? (() => NEVER);
    this.state = options.loading === true
      ? { kind: "loading", progress: 0.5 }
      : { kind: "ready", epoch: this.#epoch, model: this.#model };
  }

  /** Sequences that it holds. */
  get open(): number {
    return this.#sequences.size;
  }

  onState(listener: (state: GroupState) => void): void {
    this.#listeners.push(listener);
  }

  async run(step: Step, traceparents: readonly string[], late?: LateMasks): Promise<StepResult> {
    if (this.state.kind !== "ready") {
      throw new RequestError("group_unavailable", `Cannot run step ${step.index}: the group is ${this.state.kind}`);
    }
    this.#expect(this.#busy < this.stepsInFlight, `${this.#busy} other steps are running`);
    const epoch = this.#epoch;
    this.#busy++;
    const before = this.#turn;
    const over = Promise.withResolvers<void>();
    this.#turn = over.promise;
    try {
      await before;
      // A macrotask: timers and readers get their turn, as with a real group.
      await new Promise((resolve) => setImmediate(resolve));
      await this.#gate;
      this.#expectEpoch(epoch);
      const masked = await withLateMasks(step, late);
      this.#expectEpoch(epoch);
      const result = this.#apply(step, traceparents);
      this.steps.splice(-1, 1, masked);
      return result;
    } finally {
      this.#busy--;
      over.resolve();
    }
  }

  /** Steps wait from now on until `resume`. */
  hold(): void {
    this.#gate ??= new Promise((resolve) => this.#ungate = resolve);
  }

  resume(): void {
    this.#ungate?.();
    this.#gate = undefined;
  }

  /** The next step is refused: before it changed anything, or late, when sequences were released and opened already. */
  refuseNext(error: Error, when: "early" | "late" = "early"): void {
    this.#refusal = { error, late: when === "late" };
  }

  /** The worker dies: everything it held is gone. Another is on its way, unless the state says otherwise. */
  break(state: GroupState = { kind: "loading", progress: 0 }): void {
    this.#epoch++;
    this.#sequences.clear();
    this.#contents.clear();
    this.#change(state);
    this.resume();
  }

  /** Like `break`, but the step that runs learns of it first, while the group still calls itself ready. */
  loseStep(): void {
    this.refuseNext(new RequestError("worker_lost", "Cannot finish step: the worker died"));
    setTimeout(() => this.break(), 5);
  }

  /** New workers are there; what differs from the first ones is given. */
  recover(model: Partial<ModelInfo> = {}): void {
    this.#model = fakeModel({ ...this.#info, ...model });
    this.#map = new PageMap(this.#model.slices);
    this.#change({ kind: "ready", epoch: this.#epoch, model: this.#model });
  }

  close(): Promise<void> {
    this.#change({ kind: "closed" });
    this.resume();
    return Promise.resolve();
  }

  #change(state: GroupState): void {
    this.state = state;
    for (const listener of this.#listeners) listener(state);
  }

  #expectEpoch(epoch: number): void {
    if (this.state.kind === "ready" && this.#epoch === epoch) return;
    throw new RequestError("worker_lost", "Cannot finish step: the worker died");
  }

  #apply(step: Step, traceparents: readonly string[]): StepResult {
    const refusal = this.#refusal;
    this.#refusal = undefined;
    if (refusal !== undefined) this.#refusals++;
    if (refusal?.late === false) throw refusal.error;
    this.#expect(step.index > this.#lastIndex, `step ${step.index} follows step ${this.#lastIndex}`);
    this.#expect(step.deadlineMs > 0, "the deadline is over");
    this.#expect(step.spans.length + step.release.length > 0, "the step does nothing");
    this.#lastIndex = step.index;
    this.#check(step);
    for (const id of step.release) this.#sequences.delete(id);
    for (const open of step.open) this.#open(open, step);
    if (refusal !== undefined) throw refusal.error;
    const spans = step.spans.map((span) => this.#run(told(span, this.#drawn)));
    this.#drawn = drawnBy(spans);
    this.steps.push(step);
    this.traceparents.push(traceparents);
    const totalMs = this.#stepMs(step);
    return { index: step.index, spans, timing: { encodeMs: 0, waitMs: totalMs, totalMs } };
  }

  /** Refuses what every engine refuses, before anything has changed. */
  #check(step: Step): void {
    const held = this.#sequences.values();
    const sequences = new Map(held.map((sequence) => [sequence.open.sequence, openSequence(sequence)]));
    try {
      checkStep(step, sequences, {
        ...this.#model,
        map: this.#map,
        maxPages: Infinity,
        slots: SLOTS,
        calibrated: this.#model.sparse !== undefined,
        drawn: this.#drawn,
      });
    } catch (error) {
      // After a refused step a scheduler may ask, in a step of its own, to release what may not be there.
      const probes = this.#refusals > 0 && step.release.length === 1 && step.spans.length === 0;
      if (!probes) this.complaints.push(String(error));
      throw error;
    }
  }

  #open(open: SequenceOpening, step: Step): void {
    const id = open.sequence;
    this.#expect(!this.#everOpened.has(id), `sequence ${id} is opened twice`);
    this.#expect(step.spans.some((span) => span.sequence === id), `sequence ${id} is opened without a span`);
    this.#everOpened.add(id);
    this.#expect(open.pageOffset < this.#map.period, `offset ${open.pageOffset} is outside the page map`);
    const sequence: FakeSequence = { open, pages: [...open.prefixPages], length: 0 };
    const prefix: number[] = [];
    let chain = CHAIN_START;
    for (const page of open.prefixPages) {
      const content = this.#contents.get(page);
      for (let row = 0; row < PAGE_TOKENS; row++) {
        const token = content?.tokens[row] ?? 0;
        chain = extend(chain, token);
        this.#expect(content?.exact[row] === true, `row ${row} of prefix page ${page} is not exact`);
        this.#expect(content?.chain[row] === chain, `row ${row} of prefix page ${page} belongs to another prefix`);
        prefix.push(token);
      }
    }
    sequence.length = prefix.length;
    const fault = faultOfPrefixTokens(open, prefix);
    this.#expect(fault === undefined, `sequence ${id} ${fault}`);
    this.#sequences.set(id, sequence);
  }

  #run(span: Span): SpanResult {
    const sequence = this.#sequences.get(span.sequence) ?? assert.fail();
    const rows = span.tokens.length;
    this.#give(span, sequence);
    span.tokens.forEach((token, i) => this.#write(sequence, span, { token, position: span.from + i }));
    // Length is not state: rows after the span are still there.
    sequence.length = Math.max(sequence.length, span.from + rows);
    if (span.logits === "none") return { sequence: span.sequence };
    if (span.logits === "audit") return { sequence: span.sequence, audit: this.#audit(sequence, span) };
    const token = this.#draw(sequence, span, rows - 1);
    return { sequence: span.sequence, token, ...logprobsOf(token, sequence.open) };
  }

  /** The token after row `i` of a span. */
  #draw(sequence: FakeSequence, span: Span, i: number): number {
    const position = span.from + i;
    const token = draw(this.#row(sequence, position)?.chain ?? CHAIN_START, sequence.open);
    const errs = span.kind === "decode" && span.attention === "sparse" && this.#errs(position, sequence.open);
    return errs ? (token + 1) % VOCABULARY : token;
  }

  #audit(sequence: FakeSequence, span: Span): SpanAudit {
    this.#expect(sequence.open.audited, `sequence ${span.sequence} is audited, but was not opened for it`);
    return {
      tokens: span.tokens.map((_, i) => this.#draw(sequence, span, i)),
      divergences: Float32Array.from(span.tokens, (_, i) => this.#errs(span.from + i, sequence.open) ? 1 : 0),
    };
  }

  #give({ newPages, from, tokens }: Span, { pages }: FakeSequence): void {
    for (const page of newPages) {
      const owned = this.#sequences.values().some((other) => other.pages.includes(page));
      this.#expect(!owned, `page ${page} is given although a sequence owns it`);
      const [tokens, chain] = [new Uint32Array(PAGE_TOKENS), new Uint32Array(PAGE_TOKENS)];
      this.#contents.set(page, { tokens, chain, exact: [] });
      pages.push(page);
    }
    // Drafts that were thrown away leave pages behind, which are needed sooner or later.
    const needed = Math.max(pages.length - newPages.length, pagesFor(from + tokens.length));
    this.#expect(pages.length === needed, `${pages.length} pages are given where ${needed} are needed`);
  }

  #write(sequence: FakeSequence, span: Span, { token, position }: { token: number; position: number }): void {
    const page = sequence.pages[Math.floor(position / PAGE_TOKENS)] ?? 0;
    const owners = this.#sequences.values().filter((other) => other.pages.includes(page)).toArray().length;
    this.#expect(owners === 1, `page ${page} is written although ${owners} sequences own it`);
    const before = position === 0 ? { chain: CHAIN_START, exact: true } : this.#row(sequence, position - 1);
    const content = this.#contents.get(page);
    if (before === undefined || content === undefined) throw refused(`position ${position} follows none`);
    const row = position % PAGE_TOKENS;
    content.tokens[row] = token;
    content.chain[row] = extend(before.chain, token);
    content.exact[row] = before.exact && !(span.kind === "decode" && span.attention === "sparse");
  }

  #row({ pages }: FakeSequence, position: number): { chain: number; exact: boolean } | undefined {
    const content = this.#contents.get(pages[Math.floor(position / PAGE_TOKENS)] ?? 0);
    const [chain, exact] = [content?.chain[position % PAGE_TOKENS], content?.exact[position % PAGE_TOKENS]];
    return chain === undefined || exact === undefined ? undefined : { chain, exact };
  }

  #expect(holds: boolean, otherwise: string): void {
    if (holds) return;
    this.complaints.push(otherwise);
    throw refused(otherwise);
  }
}

function refused(reason: string): EngineError {
  return new EngineError("invalid_step", `Cannot run step: ${reason}`);
}
