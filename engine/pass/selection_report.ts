/**
 * What select layers chose for the rows whose spans ask for it. A worker that chooses alone does not need the lists itself:
 * they are copied aside for those who watch the sequence, and read together with the tokens of the step.
 */

import type { ReadRequest } from "../../kernels/gpu.ts";
import { u32Of } from "../../kernels/read_back.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import type { LayerSelection, Span } from "../span.ts";
import { chosenOf, isSparse, rowsOf, selectionOf, type SparseRun, wholeSelectionOf } from "./selection_buffers.ts";

/** Where the lists of one row and layer lie among those that are read back. */
interface ReportedRow {
  /** Index of its span in the step. */
  readonly span: number;
  readonly layer: number;
  /** The run that it chooses for, and the byte at which the row's lists begin in what it chooses. */
  readonly run: SparseRun;
  readonly from: number;
  /** In u32. */
  readonly at: number;
  readonly sets: number;
  readonly stride: number;
  /** The most entries of a list. */
  readonly most: number;
}

/** Reports of one step; made before anything of it is recorded. */
export class SelectionReport {
  readonly #model: LoadedModel;
  readonly #spans: readonly Span[];
  /** Batch by batch, layer by layer, in the order in which they are copied. */
  readonly #rows: readonly (ReportedRow & { readonly batch: RowBatch })[];
  readonly #lists: Tensor;
  readonly #byteLength: number;

  constructor(model: LoadedModel, spans: readonly Span[], batches: readonly RowBatch[]) {
    this.#model = model;
    this.#spans = spans;
    const layers = (model.roles ?? []).flatMap((role, layer) => (role === "select" ? [layer] : []));
    let words = 0;
    this.#rows = batches.flatMap((batch) =>
      layers.flatMap((layer) => this.#rowsOf(batch, layer)).map((row) => {
        const at = words;
        words += row.sets * row.stride;
        return { ...row, batch, at };
      })
    );
    this.#byteLength = 4 * words;
    this.#lists = model.scratch.take("reported selections", "u32", [words]);
  }

  /** Copies what a select layer has just chosen, before the next one writes over it. */
  take(layer: number, batch: RowBatch): void {
    for (const { batch: of, layer: chosenIn, run, from, at, sets, stride } of this.#rows) {
      if (of !== batch || chosenIn !== layer) continue;
      const { positions } = reportedOf(this.#model, batch, run);
      this.#model.commands.copy(positions, this.#lists, { from, to: at * 4, byteLength: sets * stride * 4 });
    }
  }

  /** What the copies of a batch depend on. */
  shapeOf(batch: RowBatch): string {
    return this.#rows.flatMap((row) => (row.batch === batch ? [`${row.from}>${row.at}`] : [])).join();
  }

  #rowsOf(batch: RowBatch, layer: number): Omit<ReportedRow, "at">[] {
    const { share: { map, index } } = this.#model;
    return batch.runs.filter(isSparse).flatMap((run) => {
      const rows = rowsOf(batch, run);
      if (!rows.some(({ span }) => this.#isReported(batch, span))) return [];
      const { sets, stride } = reportedOf(this.#model, batch, run);
      return rows.flatMap(({ span, position, sequence: { open } }, r) => {
        if (!this.#isReported(batch, span)) return [];
        const here = map.localRows(index, open.pageOffset, position + 1);
        const most = Math.min(open.sparse.budget, batch.computer === undefined ? here : position + 1);
        return [{ span, layer, run, from: r * sets * stride * 4, sets, stride, most }];
      });
    });
  }

  /** What must be read back once all batches were submitted. */
  get requests(): readonly ReadRequest[] {
    return this.#byteLength === 0 ? [] : [{ tensor: this.#lists, byteLength: this.#byteLength }];
  }

  /**
   * @param read what `requests` gave
   * @returns by index of the span in the step; of rows that a worker computes alone
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

  #isReported({ computer }: RowBatch, span: number): boolean {
    const { map, index } = this.#model.share;
    return (map.workers === 1 || computer === index) && this.#spans[span]?.reportsSelection === true;
  }
}

/** What is chosen without the others: of the slice, which is all there is, or of all slices. */
function reportedOf(model: LoadedModel, batch: RowBatch, run: SparseRun) {
  return batch.computer === undefined ? selectionOf(model, run) : wholeSelectionOf(model, batch, run);
}
