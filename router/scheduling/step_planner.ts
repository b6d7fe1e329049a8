/**
 * Decides what the next step computes: a row for every sequence that decodes, and as much of corrections and of prefill as
 * fits into the time they may wait. Knows sequences, pages and predicted time; knows nothing of the group that will run it.
 */

import { PAGE_TOKENS } from "../../engine/span.ts";
import { type CostModel, NO_LOAD, type StepLoad } from "./cost_model.ts";
import { decodeWork } from "./decode_work.ts";
import type { PageLedger } from "./page_ledger.ts";
import type { Roster } from "./roster.ts";
import type { Sequence } from "./sequence.ts";
import type { DoneWork, Work } from "./work.ts";
import { loadWith, rowsThatFit } from "./work_load.ts";

/** One sequence's part of a step. */
export interface PlannedSpan extends DoneWork {
  readonly sequence: Sequence;
}

/** What a step will do. */
export interface Plan {
  readonly spans: readonly PlannedSpan[];
  readonly load: StepLoad;
}

/** What the planner may not exceed. */
export interface PlanLimits {
  /** Rows decoded in one step, and sequences that run at a time. */
  readonly maxBatch: number;
  /** Predicted time that corrections and prefill may add to a step in which others decode, in milliseconds. */
  readonly sharedPrefillMs: number;
  /** The same when nobody decodes. */
  readonly alonePrefillMs: number;
}

/** Bounds of a chunk in rows: less is not worth a step, more is not worth its scratch memory. */
const MIN_CHUNK = 16;
const MAX_CHUNK = 2048;

/** Sequences that a worker can hold at a time, paused ones included. */
const MAX_OPEN = 256;

/** What the planner looks at and changes. */
export interface PlannerParts {
  readonly roster: Roster;
  readonly ledger: PageLedger;
  readonly costs: CostModel;
  readonly limits: PlanLimits;
  /** Told of every sequence that lost its pages to another. */
  readonly onPreempted: (sequence: Sequence) => void;
  /** Told of every sequence that stopped waiting. */
  readonly onAdmitted: (sequence: Sequence) => void;
}

/** Plans one step, once. */
export class StepPlanner {
  readonly #parts: PlannerParts;
  readonly #planned = new Map<Sequence, DoneWork>();
  #load: StepLoad = NO_LOAD;
  #chunks = 0;

  constructor(parts: PlannerParts) {
    this.#parts = parts;
  }

  /** Admits, grows and preempts as it goes; no spans come out only when nobody can run. */
  plan(): Plan {
    const latestMs = this.#decode();
    this.#prefill(latestMs);
    const spans = Array.from(this.#planned, ([sequence, done]) => ({ sequence, ...done }));
    return { spans, load: this.#load };
  }

  /**
   * Who waited longest decodes; pages go to the oldest first, so that at least that one always gets on.
   * @returns how long the step may take with prefill
   */
  #decode(): number {
    const { roster, limits, costs } = this.#parts;
    const ready = roster.running.filter((sequence) => !sequence.paused && decodes(sequence));
    const chosen = ready.sort((a, b) => a.lastStep - b.lastStep || a.arrival - b.arrival).slice(0, limits.maxBatch);
    const prefills = roster.waiting.length > 0 || roster.running.some((sequence) => !decodes(sequence));
    const correctionMs = chosen.length > 1 ? limits.sharedPrefillMs : limits.alonePrefillMs;
    const { works, rowsMs } = decodeWork(chosen, costs, prefills ? correctionMs / 2 : correctionMs);
    for (const sequence of chosen.toSorted((a, b) => a.arrival - b.arrival)) {
      const work = works.get(sequence);
      if (sequence.id !== undefined && work !== undefined && this.#makeRoom(sequence)) this.#add(sequence, work);
    }
    return rowsMs + (this.#planned.size > 0 ? limits.sharedPrefillMs : limits.alonePrefillMs);
  }

  /** First come, first served: whoever is not through with its prompt, then who waits. */
  #prefill(latestMs: number): void {
    const { roster } = this.#parts;
    for (const sequence of roster.running.filter((sequence) => !sequence.paused && !decodes(sequence))) {
      if (sequence.id !== undefined && !this.#chunk(sequence, latestMs)) return;
    }
    for (const sequence of roster.waiting.filter((sequence) => !sequence.paused)) {
      if (this.#rowsWithin(sequence, latestMs) === 0 || !this.#admit(sequence)) return;
      // All but a last token may have been found in the cache, and that one is a decode row if it was drawn.
      if (decodes(sequence)) {
        if (this.#makeRoom(sequence)) this.#add(sequence, sequence.work());
      } else if (!this.#chunk(sequence, latestMs)) return;
    }
  }

  /** Takes the pages of paused sequences where needed, never those of others. */
  #admit(sequence: Sequence): boolean {
    const { roster, ledger, limits, onAdmitted } = this.#parts;
    if (roster.running.filter((other) => !other.paused).length >= limits.maxBatch) return false;
    const fits = () => ledger.canAdmit(sequence, roster.running);
    while (roster.running.length >= MAX_OPEN || !fits()) {
      const sleeper = roster.running.findLast((other) => other.paused);
      if (sleeper === undefined) return false;
      this.#preempt(sleeper);
    }
    roster.admit(sequence, ledger);
    onAdmitted(sequence);
    return true;
  }

  /** Plans a chunk of a running sequence. @returns whether the step may take another */
  #chunk(sequence: Sequence, latestMs: number): boolean {
    const { ledger } = this.#parts;
    // The only one in a step must get on; beside others it makes do with the pages that are there.
    if (this.#planned.size === 0 && !this.#makeRoom(sequence)) return true;
    const work = sequence.work();
    const rows = Math.min(this.#rowsWithin(sequence, latestMs), ledger.reach(sequence) - sequence.cached);
    if (rows <= 0) return false;
    this.#chunks++;
    this.#add(sequence, { ...work, rows: rows === work.rows ? rows : this.#aligned(sequence.cached, rows) });
    return rows === work.rows;
  }

  /** Rows of its next chunk that the time allows; the first chunk of a step always gets some. */
  #rowsWithin(sequence: Sequence, latestMs: number): number {
    const work = sequence.work();
    const most = { ...work, rows: Math.min(work.rows, MAX_CHUNK - this.#load.prefillRows) };
    const fitting = rowsThatFit(this.#parts.costs, this.#load, { sequence, work: most, latestMs });
    const least = work.kind === "prefill" ? Math.min(work.rows, MIN_CHUNK) : work.rows;
    if (this.#chunks === 0) return Math.max(least, fitting);
    return fitting >= least ? fitting : 0;
  }

  /** Fewer rows, so that the next chunk starts on a page border if that leaves enough, else on a multiple of 16. */
  #aligned(from: number, rows: number): number {
    const toBorder = Math.floor((from + rows) / PAGE_TOKENS) * PAGE_TOKENS - from;
    if (toBorder < MIN_CHUNK) return rows < MIN_CHUNK ? rows : rows - rows % MIN_CHUNK;
    // Workers share a chunk by its pages; whole turns of the page map keep them all busy to the end.
    const turn = PAGE_TOKENS * this.#parts.ledger.period;
    return this.#load.decodeRows > 0 || toBorder < turn ? toBorder : toBorder - toBorder % turn;
  }

  /**
   * Preempts the youngest who holds pages where the next one is missing, until there is room.
   * @returns false when it lost its own place
   */
  #makeRoom(sequence: Sequence): boolean {
    const { roster, ledger } = this.#parts;
    while (ledger.reach(sequence) <= sequence.cached) {
      const worker = ledger.bottleneck(sequence);
      const candidates = roster.running.filter((other) =>
        !this.#planned.has(other) && (other === sequence || ledger.holdsOn(other, worker))
      );
      const victim = candidates.findLast((other) => other.paused) ?? candidates.at(-1) ?? sequence;
      this.#preempt(victim);
      if (victim === sequence) return false;
    }
    return true;
  }

  #preempt(victim: Sequence): void {
    this.#parts.roster.preempt(victim, this.#parts.ledger);
    this.#parts.onPreempted(victim);
  }

  #add(sequence: Sequence, work: Work): void {
    if (sequence.id === undefined) return;
    this.#load = loadWith(this.#load, sequence, work);
    const newPages = this.#parts.ledger.grow(sequence, work.from + work.rows);
    this.#planned.set(sequence, { work, span: sequence.span(sequence.id, work, newPages) });
  }
}

/** Whether the next row is that of a drawn token, or stands in for it. */
function decodes(sequence: Sequence): boolean {
  const { kind } = sequence.work();
  return kind === "dense" || kind === "sparse" || kind === "correction";
}
