/**
 * Decides what the next step computes: a row for every sequence that decodes, and as much of corrections and of prefill as
 * fits into the time they may wait. Knows sequences, pages and predicted time; knows nothing of the group that will run it.
 */

import { PAGE_TOKENS } from "../../engine/span.ts";
import { type CostModel, NO_LOAD, type StepLoad } from "./cost_model.ts";
import { decodeWork } from "./decode_work.ts";
import { FairAdmission } from "./fair_admission.ts";
import type { PageLedger } from "./page_ledger.ts";
import { byRank, type Roster } from "./roster.ts";
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
  /**
   * Predicted time that corrections and prefill may add to a step in which others decode, in milliseconds. The longest
   * waiting prompt gets as much as all others take together, so that it is done within twice its time alone.
   */
  readonly sharedPrefillMs: number;
  /** The same when nothing decodes. */
  readonly alonePrefillMs: number;
  /** How long others may start before a sequence that waits for pages, in milliseconds. */
  readonly maxBypassMs: number;
}

/** Bounds of a chunk in rows: less is not worth a step, more for each worker is not worth its scratch memory. */
const MIN_CHUNK = 16;
const MAX_CHUNK = 2048;

/** What the planner looks at and changes. */
export interface PlannerParts {
  readonly roster: Roster;
  readonly ledger: PageLedger;
  readonly costs: CostModel;
  readonly limits: PlanLimits;
  /** Called for every sequence that lost its pages to another. */
  readonly onPreempted: (sequence: Sequence) => void;
  /** Called for every sequence that stopped waiting. */
  readonly onAdmitted: (sequence: Sequence) => void;
}

/** Plans one step, once. */
export class StepPlanner {
  readonly #parts: PlannerParts;
  readonly #planned = new Map<Sequence, DoneWork>();
  readonly #admission: FairAdmission;
  #load: StepLoad = NO_LOAD;
  #chunks = 0;

  constructor(parts: PlannerParts) {
    this.#parts = parts;
    this.#admission = new FairAdmission({
      ...parts,
      ...parts.limits,
      isPlanned: (sequence) => this.#planned.has(sequence),
      preempt: (sequence) => this.#preempt(sequence),
    });
  }

  /** Admits, grows and preempts as it goes; no spans come out only when no sequence can run. */
  plan(): Plan {
    this.#welcome();
    this.#prefill(this.#decode());
    const spans = Array.from(this.#planned, ([sequence, done]) => ({ sequence, ...done }));
    return { spans, load: this.#load };
  }

  /** The first request that has nothing running is admitted while those that run can still make room for it. */
  #welcome(): void {
    const running = new Set(this.#parts.roster.running.map(({ request }) => request.requestId));
    const next = this.#unfilled().find(({ id, request }) => id === undefined && !running.has(request.requestId));
    if (next !== undefined) this.#admit(next);
  }

  /**
   * The sequences that waited longest decode; pages go to the oldest first, so that at least that one always makes
   * progress.
   * @returns predicted time of the step without corrections and prefill
   */
  #decode(): number {
    const { roster, limits, costs } = this.#parts;
    const ready = roster.running.filter((sequence) => !sequence.paused && decodes(sequence));
    const chosen = ready.sort(byTurn).slice(0, limits.maxBatch);
    const prefills = roster.waiting.length > 0 || roster.running.some((sequence) => !decodes(sequence));
    const correctionMs = chosen.length > 1 ? limits.sharedPrefillMs : limits.alonePrefillMs;
    const next = chosen.map((sequence) => ({ sequence, work: sequence.work() }));
    const { works, rowsMs } = decodeWork(next, costs, prefills ? correctionMs / 2 : correctionMs);
    for (const sequence of chosen.toSorted(byRank)) {
      const work = works.get(sequence);
      if (sequence.id !== undefined && work !== undefined && this.#makeRoom(sequence)) this.#add(sequence, work);
    }
    return this.#planned.size > 0 ? rowsMs : 0;
  }

  /**
   * Shares prefill out: prompts that are shorter than the first one get half of the time, however long that is; the first one
   * gets the rest, and as much as the step takes without it, however many short ones come.
   */
  #prefill(rowsMs: number): void {
    const { limits, costs } = this.#parts;
    const extraMs = this.#planned.size > 0 ? limits.sharedPrefillMs : limits.alonePrefillMs;
    const [first, ...others] = this.#unfilled();
    if (first === undefined) return;
    // Before the others, so that they cannot take its place.
    if (first.id === undefined) this.#admit(first);
    const shortest = others.toSorted((a, b) => priorityOf(a) - priorityOf(b) || a.work().rows - b.work().rows);
    const rows = first.work().rows;
    for (const sequence of shortest) {
      if (priorityOf(sequence) > priorityOf(first) || sequence.work().rows >= rows) continue;
      if (!this.#advance(sequence, rowsMs + extraMs / 2)) break;
    }
    const latestMs = Math.max(rowsMs + extraMs, 2 * costs.predictMs(this.#load));
    for (const sequence of [first, ...shortest]) {
      if (!this.#planned.has(sequence) && !this.#advance(sequence, latestMs)) return;
    }
  }

  /** Everything whose prompt or lost rows are not computed, by rank; what waits for pages is overtaken. */
  #unfilled(): readonly Sequence[] {
    const { waiting, running } = this.#parts.roster;
    const isUnfilled = (sequence: Sequence) => !sequence.paused && !decodes(sequence);
    const filling = running.filter(isUnfilled);
    return [...filling, ...waiting.filter((sequence) => !sequence.paused)].sort((a, b) =>
      Number(a.blockedAtMs !== undefined) - Number(b.blockedAtMs !== undefined) || byRank(a, b)
    );
  }

  /** Gives a sequence a chunk, after admitting it where it waits. @returns whether the step may take another */
  #advance(sequence: Sequence, latestMs: number): boolean {
    if (this.#rowsWithin(sequence, latestMs) === 0) return false;
    if (sequence.id === undefined && !this.#admit(sequence)) return true;
    if (!decodes(sequence)) return this.#chunk(sequence, latestMs);
    // All but a last token may have been found in the cache, and that one is a decode row if it was drawn.
    if (this.#makeRoom(sequence)) this.#add(sequence, sequence.work());
    return true;
  }

  #admit(sequence: Sequence): boolean {
    const isAdmitted = this.#admission.admit(sequence);
    if (isAdmitted) this.#parts.onAdmitted(sequence);
    return isAdmitted;
  }

  /** Plans a chunk of a running sequence. @returns whether the step may take another */
  #chunk(sequence: Sequence, latestMs: number): boolean {
    const { ledger } = this.#parts;
    // The only one in a step must make progress; beside others it uses the pages that are free.
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
    const { costs, ledger } = this.#parts;
    const most = { ...work, rows: Math.min(work.rows, MAX_CHUNK * ledger.workers - this.#load.prefillRows) };
    const fitting = rowsThatFit(costs, this.#load, { sequence, work: most, latestMs });
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
   * Preempts the youngest sequence that holds pages where the next one is missing, until there is room.
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

/** Who decodes next: by priority, then by time waited. */
function byTurn(a: Sequence, b: Sequence): number {
  return priorityOf(a) - priorityOf(b) || a.lastStep - b.lastStep || a.arrival - b.arrival;
}

function priorityOf({ request }: Sequence): number {
  return request.priority;
}
