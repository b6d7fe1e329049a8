/**
 * Whether the sparse layers of a sequence copy rows or exchange states, where a group may do either: what costs less by what its
 * exchanges were measured to take, from its first steps on. Decided when a sequence is opened and kept while it is open, so that
 * all of its rows have the same bits whatever is measured meanwhile. Knows timings and settings; sends nothing.
 */

import { type LayerRole, sparseLayersAfter } from "../../engine/layer_plan.ts";
import {
  attendsSparsely,
  type SequenceId,
  type SequenceOpening,
  type SparseSettings,
  type Step,
  type StepTiming,
} from "../../engine/span.ts";
import { LinkFit } from "./link_fit.ts";

/** One of the two. */
type Choice = NonNullable<SequenceOpening["sparseExchange"]>;

/** An open sequence, and how many of its rows were decoded sparsely. */
interface Followed {
  readonly sparse: SparseSettings;
  readonly choice: Choice;
  rows: number;
}

/** What rows cost that are copied, once any were. */
interface CopyingCost {
  /** Of one position that a store lacks, over the layers that read it. */
  readonly bytesPerMissing: number;
  /** Of a row, over its sets and select layers, by its budget. */
  readonly chosenPerBudget: number;
}

/** Share of a selection that a store lacks while nothing else is known: of the embedded model, at small and large budgets. */
const SMALL_BUDGET = 128;
const MISSING = { small: 0.12, large: 0.05 } as const;

/** Rows that fill a store before its misses say anything. */
const FILLING_ROWS = 16;

/** Weight of a step that is learned. */
const WEIGHT = 0.05;

/** The same of what says how much of the sequences is copied; where less than a half exchanges states, they cost next to nothing. */
const COPIED_WEIGHT = 0.2;
const MIN_EXCHANGED = 0.5;

/** Sequences that exchange states before one copies rows again: what is missing shows only there. */
const TRY_AGAIN = 32;

/** See the top of this file. */
export class ExchangeChoice {
  readonly #sparseLayers: number;
  readonly #selectLayers: number;
  readonly #link = new LinkFit();
  readonly #followed = new Map<SequenceId, Followed>();
  #copying: CopyingCost | undefined;
  #missing: number | undefined;
  #statesInTurn = 0;
  readonly #layers: number;
  /** Of the exchanges that sparse rows by states could need, those that they do: none where all that they see is copied. */
  #exchanged: number;

  /**
   * @param roles of the model's layers; undefined: no row is sparse
   * @param copies whether workers keep copies of whole sequences while there is room
   */
  constructor(roles: readonly LayerRole[] | undefined, copies = false) {
    this.#layers = roles?.length ?? 0;
    this.#exchanged = copies ? 0 : 1;
    const select = (roles ?? []).flatMap((role, layer) => role === "select" ? [layer] : []);
    this.#selectLayers = select.length;
    this.#sparseLayers = select.reduce((sum, layer) => sum + sparseLayersAfter(roles ?? [], layer), 0);
  }

  /** The step with a choice for each sequence that it opens. */
  open(step: Step): Step {
    if (step.open.length === 0) return step;
    const open = step.open.map((opening): SequenceOpening => {
      const choice = this.choose(opening.sparse);
      this.#followed.set(opening.sequence, { sparse: opening.sparse, choice, rows: 0 });
      return { ...opening, sparseExchange: choice };
    });
    return { ...step, open };
  }

  /** What costs less for a sequence with such settings. */
  choose(sparse: SparseSettings): Choice {
    if (this.#exchanged < MIN_EXCHANGED) return "states";
    const { statesMs, rowsMs } = this.predict(sparse);
    if (rowsMs <= statesMs) this.#statesInTurn = 0;
    else if (++this.#statesInTurn <= TRY_AGAIN) return "states";
    else [this.#statesInTurn, this.#missing] = [0, undefined];
    return "rows";
  }

  /** What the exchanges for the sparse layers of one row take, either way; rows cost nothing until some were copied. */
  predict({ budget }: Pick<SparseSettings, "budget">): { readonly statesMs: number; readonly rowsMs: number } {
    const statesMs = this.#sparseLayers * this.#link.predictMs({ count: 1, bytes: this.#link.bytesOf("states") });
    if (this.#copying === undefined) return { statesMs, rowsMs: 0 };
    const missing = this.#missing ?? (budget <= SMALL_BUDGET ? MISSING.small : MISSING.large);
    const bytes = missing * budget * this.#copying.chosenPerBudget * this.#copying.bytesPerMissing;
    return { statesMs, rowsMs: this.#link.predictMs({ count: this.#selectLayers, bytes }) };
  }

  /** Takes what a step took, of the lead. */
  learn({ spans, release }: Pick<Step, "spans" | "release">, { exchange, replicas }: StepTiming): void {
    const sparse = spans.flatMap((span) => {
      const followed = this.#followed.get(span.sequence);
      return attendsSparsely(span) && followed !== undefined ? [followed] : [];
    });
    if (exchange !== undefined) {
      for (const kind of ["states", "replicas"] as const) {
        const measured = { count: exchange.counts[kind], bytes: exchange.bytes[kind] };
        // States of a prompt overlap with nothing, and are far larger than those of rows.
        if (spans.every(({ kind }) => kind === "decode")) this.#link.learn(kind, measured, exchange.ms[kind]);
      }
      const copied = sparse.filter(({ choice }) => choice === "rows");
      if (replicas !== undefined && replicas.missing > 0 && copied.length > 0) {
        const budgets = copied.reduce((sum, { sparse: { budget } }) => sum + budget, 0);
        this.#copying = {
          bytesPerMissing: exchange.bytes.replicas / replicas.missing,
          chosenPerBudget: replicas.chosen / budgets,
        };
      }
      const isFilled = copied.length > 0 && copied.every(({ rows }) => rows >= FILLING_ROWS);
      if (replicas !== undefined && isFilled) this.#learnMissing(replicas.missing / replicas.chosen);
    }
    const isByStates = sparse.length === spans.length && sparse.every(({ choice }) => choice === "states");
    if (exchange !== undefined && isByStates && sparse.length > 0) {
      this.#learnExchanged(exchange.counts.states / this.#layers);
    }
    for (const followed of sparse) followed.rows++;
    for (const sequence of release) this.#followed.delete(sequence);
  }

  #learnExchanged(share: number): void {
    this.#exchanged = (1 - COPIED_WEIGHT) * this.#exchanged + COPIED_WEIGHT * Math.min(1, share);
  }

  #learnMissing(share: number): void {
    this.#missing = this.#missing === undefined ? share : (1 - WEIGHT) * this.#missing + WEIGHT * share;
  }
}
