/**
 * What was chosen last for each sequence, for those who want to see where a model looks. Knows sequences, layers and
 * positions; knows nothing of how they were chosen.
 */

import type { Candidates } from "../../engine/exchange.ts";
import type { SequenceId, Step, StepResult } from "../../engine/span.ts";

/** What a select layer chose for one row. */
export interface RecordedSelection {
  readonly layer: number;
  /** Of the row. */
  readonly position: number;
  /** Global positions, ascending; one list for each set. */
  readonly sets: readonly Uint32Array[];
}

/** A row that positions were chosen for, and how many sets of them. */
type SelectedRow = Pick<Candidates["rows"][number], "sequence" | "position" | "sets">;

const SEQUENCES = 256;

/** The newest selections of the sequences that were selected for last. */
export class SelectionRecord {
  readonly #limit: number;
  /** The sequence that waited longest comes first. */
  readonly #bySequence = new Map<SequenceId, Map<number, RecordedSelection>>();

  /** @param limit sequences that are remembered */
  constructor(limit: number = SEQUENCES) {
    this.#limit = limit;
  }

  /** Selections of a sequence, by layer; none when it is not remembered. */
  of(sequence: SequenceId): readonly RecordedSelection[] {
    const layers = this.#bySequence.get(sequence)?.values() ?? [];
    return [...layers].sort((a, b) => a.layer - b.layer);
  }

  /** Remembers what a worker that chooses alone reported with a step. */
  report({ spans }: Step, result: StepResult): void {
    for (const [i, { sequence, from: position }] of spans.entries()) {
      for (const { layer, sets } of result.spans[i]?.selections ?? []) {
        this.note(layer, [{ sequence, position, sets: sets.length }], sets);
      }
    }
  }

  /** Remembers what a layer chose, row by row, set by set. Does not copy. */
  note(layer: number, rows: readonly SelectedRow[], chosen: readonly Uint32Array[]): void {
    let at = 0;
    for (const { sequence, position, sets } of rows) {
      const layers = this.#bySequence.get(sequence) ?? new Map<number, RecordedSelection>();
      this.#bySequence.delete(sequence);
      this.#bySequence.set(sequence, layers.set(layer, { layer, position, sets: chosen.slice(at, at += sets) }));
    }
    for (const oldest of this.#bySequence.keys()) {
      if (this.#bySequence.size <= this.#limit) return;
      this.#bySequence.delete(oldest);
    }
  }
}
