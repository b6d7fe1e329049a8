/**
 * What select layers chose for the rows whose spans ask for it. A worker alone in its group never needs to know; somebody
 * who watches a sequence does: the lists are copied aside, and read together with the tokens of the step.
 */

import type { ReadRequest } from "../../kernels/gpu.ts";
import { u32Of } from "../../kernels/read_back.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import type { LayerSelection, Span } from "../span.ts";
import { chosenOf, rowsOf } from "./candidates.ts";
import { isSparse, selectionOf } from "./selection_buffers.ts";

/** Where the lists of one row and layer lie among those that are read back. */
interface ReportedRow {
  /** Index of its span in the step. */
  readonly span: number;
  readonly layer: number;
  /** In u32. */
  readonly at: number;
  readonly sets: number;
  readonly stride: number;
  /** Longest a list can be. */
  readonly most: number;
}

/** Reports of one step; made before anything of it is recorded. */
export class SelectionReport {
  readonly #model: LoadedModel;
  readonly #spans: readonly Span[];
  readonly #rows: ReportedRow[] = [];
  readonly #lists: Tensor;
  readonly #byteLength: number;

  constructor(model: LoadedModel, spans: readonly Span[], batches: readonly RowBatch[]) {
    this.#model = model;
    this.#spans = spans;
    const layers = model.roles?.filter((role) => role === "select").length ?? 0;
    const words = batches.flatMap((batch) =>
      batch.runs.filter(isSparse).map((run) => {
        const rows = rowsOf(batch, run).filter(({ span }) => this.#isReported(span)).length;
        if (rows === 0) return 0;
        const { sets, stride } = selectionOf(model, run);
        return rows * sets * stride;
      })
    );
    this.#byteLength = 4 * layers * words.reduce((sum, count) => sum + count, 0);
    this.#lists = model.scratch.take("reported selections", "u32", [this.#byteLength / 4]);
  }

  /** Copies what a select layer has just chosen, before the next one writes over it. */
  take(layer: number, batch: RowBatch): void {
    if (this.#byteLength === 0) return;
    const { commands, share: { map, index } } = this.#model;
    for (const run of batch.runs.filter(isSparse)) {
      const { positions, sets, stride } = selectionOf(this.#model, run);
      const rowBytes = sets * stride * 4;
      for (const [r, { span, position, sequence: { open } }] of rowsOf(batch, run).entries()) {
        if (!this.#isReported(span)) continue;
        const last = this.#rows.at(-1);
        const at = last === undefined ? 0 : last.at + last.sets * last.stride;
        commands.copy(positions, this.#lists, { from: r * rowBytes, to: at * 4, byteLength: rowBytes });
        const most = Math.min(open.sparse.budget, map.localRows(index, open.pageOffset, position + 1));
        this.#rows.push({ span, layer, at, sets, stride, most });
      }
    }
  }

  /** What must be read back once all batches were submitted. */
  get requests(): readonly ReadRequest[] {
    return this.#byteLength === 0 ? [] : [{ tensor: this.#lists, byteLength: this.#byteLength }];
  }

  /**
   * @param read what `requests` gave
   * @returns by index of the span in the step; alone in its group, a worker's local rows are the positions
   */
  selections([bytes]: readonly Uint8Array<ArrayBuffer>[]): ReadonlyMap<number, readonly LayerSelection[]> {
    if (bytes === undefined) return new Map();
    const words = u32Of(bytes);
    const entries = this.#rows.map(({ span, layer, at, sets, stride, most }) => ({
      span,
      selection: {
        layer,
        sets: Array.from({ length: sets }, (_, set) => {
          const from = at + set * stride;
          return chosenOf(words.subarray(from, from + most));
        }),
      },
    }));
    const bySpan = Map.groupBy(entries, ({ span }) => span);
    return new Map([...bySpan].map(([span, all]) => [span, all.map(({ selection }) => selection)]));
  }

  #isReported(span: number): boolean {
    return this.#model.share.map.workers === 1 && this.#spans[span]?.reportsSelection === true;
  }
}
