/**
 * How much of a selection is new from one decoded row to the next, and how much of it a store of copies would lack: what a
 * group that copies rows would have to send. A known text is decoded row by row, and what each select layer chose is looked up in
 * the accounts that a group keeps. Knows selections and accounts; no row is copied.
 */

import type { SessionHost } from "./hand_session.ts";
import { SequenceReplicas } from "../kv/sequence_replicas.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { replicaRing } from "../replica_plan.ts";
import { type LayerSelection, PAGE_TOKENS, type SparseSettings } from "../span.ts";

/** What to measure, behind one context. */
export interface ChurnOptions {
  readonly config: Pick<ModelConfig, "heads" | "kvHeads">;
  readonly sparse: SparseSettings;
  /** Sizes of stores, in budgets. */
  readonly stores: readonly number[];
  /** Rows that fill the stores before anything is counted. */
  readonly uncounted: number;
}

/** Means over rows, sets and select layers. */
export interface ChurnFigures {
  /** Positions of a set. */
  readonly setSize: number;
  /** Share of a set that the row before did not choose. */
  readonly fresh: number;
  /** By store: share of a set that neither it nor the newest rows hold. */
  readonly missing: readonly number[];
}

/** Rows of a prefill step. */
const CHUNK = 512;

/**
 * Decodes the end of a text behind its first tokens.
 * @param text the context, and the rows after it
 * @param contexts ascending multiples of the page size, each shorter than the text
 * @param rows to decode behind each
 */
export async function* churnOf(
  host: SessionHost,
  text: Uint32Array,
  { contexts, rows, variants }: {
    readonly contexts: readonly number[];
    readonly rows: number;
    readonly variants: readonly ChurnOptions[];
  },
): AsyncGenerator<{ readonly context: number; readonly variant: ChurnOptions; readonly figures: ChurnFigures }> {
  const base = host.open();
  try {
    for (const context of contexts) {
      while (base.length < context) {
        await base.prefill(text.subarray(base.length, Math.min(base.length + CHUNK, context)), "none");
      }
      for (const variant of variants) {
        const session = host.share(base, context, { sparse: variant.sparse });
        const tally = new ChurnTally(variant);
        for (let row = session.length; row < context + rows; row++) {
          const span = { kind: "decode", attention: "sparse", logits: "none", reportsSelection: true } as const;
          const { selections = [] } = await session.run({ ...span, tokens: text.slice(row, row + 1) });
          tally.add(row, selections);
        }
        await session.close();
        yield { context, variant, figures: tally.figures };
      }
    }
  } finally {
    await base.close();
  }
}

/** Adds up what the rows of one sequence chose. */
export class ChurnTally {
  readonly #uncounted: number;
  readonly #stores: readonly SequenceReplicas[];
  readonly #before = new Map<string, ReadonlySet<number>>();
  readonly #missing: number[];
  #rows = 0;
  #sets = 0;
  #chosen = 0;
  #fresh = 0;

  constructor({ config, sparse, stores, uncounted }: ChurnOptions) {
    this.#uncounted = uncounted;
    this.#missing = stores.map(() => 0);
    const ring = replicaRing(sparse);
    this.#stores = stores.map((budgets) => {
      const store = Math.ceil(budgets * sparse.budget / PAGE_TOKENS) * PAGE_TOKENS;
      return new SequenceReplicas({ room: { ring, store }, pages: [], firstRow: 0, config, shape: sparse.heads });
    });
  }

  /** Takes what the select layers chose for the next row. */
  add(position: number, selections: readonly LayerSelection[]): void {
    const counts = this.#rows++ >= this.#uncounted;
    for (const store of this.#stores) store.append(position);
    for (const { layer, sets } of selections) {
      for (const [i, store] of this.#stores.entries()) {
        const { missing } = store.find(layer, sets);
        if (counts) this.#missing[i] = (this.#missing[i] ?? 0) + missing.length;
      }
      for (const [set, positions] of sets.entries()) {
        const key = `${layer} ${set}`;
        const before = this.#before.get(key);
        this.#before.set(key, new Set(positions));
        if (!counts) continue;
        this.#sets++;
        this.#chosen += positions.length;
        this.#fresh += positions.filter((each) => before?.has(each) !== true).length;
      }
    }
  }

  get figures(): ChurnFigures {
    return {
      setSize: this.#chosen / this.#sets,
      fresh: this.#fresh / this.#chosen,
      missing: this.#missing.map((count) => count / this.#chosen),
    };
  }
}
