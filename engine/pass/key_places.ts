/**
 * Where the keys and values of a batch lie that one worker computes, and through what they travel to the others; and how many are on
 * their way. Knows rows and pages; knows nothing of layers or connections.
 */

import { REPLICA_ENTRY_WORDS } from "../../kernels/attention/replica_rows.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import { uploadWholePages, type WholePages } from "./whole_pages.ts";

/** Layers whose keys and values may be on their way from a worker: it records so far ahead of its GPU, and no further. */
const MAX_UNSENT = 4;

/** Where the keys and values of a batch's rows lie, and through what they travel. */
export interface KeyPlaces {
  readonly pages: WholePages;
  /** u32 [entries, 4]: each KV head of each row, in order. */
  readonly entries: Tensor;
  readonly count: number;
  /** Halves packed in u32 [entries, layers, 2, headDim / 2] */
  readonly transit: Tensor;
  /** That travel together. */
  readonly layers: number;
}

/**
 * Uploads where the keys and values of a batch lie on this worker, whichever computes it.
 * @param batch its index in the step
 */
export function placeKeys(model: LoadedModel, { pieces, rows, computer, product }: RowBatch, batch: number): KeyPlaces {
  const { commands, scratch, config: { kvHeads, headDim } } = model;
  const layers = product === "tiled" ? 1 : model.config.layers;
  const count = rows * kvHeads;
  const words = new Uint32Array(count * REPLICA_ENTRY_WORDS);
  let at = 0;
  for (const [number, { from, rows }] of pieces.entries()) {
    for (let position = from; position < from + rows; position++) {
      for (let head = 0; head < kvHeads; head++, at += REPLICA_ENTRY_WORDS) {
        words[at] = number;
        words[at + 1] = head;
        words[at + 2] = position;
      }
    }
  }
  const entries = scratch.take(`entries of worker ${computer}`, "u32", [count, REPLICA_ENTRY_WORDS]);
  commands.write(entries, words);
  // That of a few rows is read after the step's other batches.
  const ofWhom = product === "tiled" ? `worker ${computer}` : `batch ${batch}`;
  const transit = scratch.take(`keys of ${ofWhom}`, "u32", [count, layers, 2, headDim / 2]);
  const pages = uploadWholePages(model, pieces, `pages of rows of worker ${computer}`);
  return { pages, entries, count, transit, layers };
}

/** What this worker has sent in a step that has not left yet. */
export class UnsentKeys {
  readonly #sending: Promise<void>[] = [];

  /** Adds what is being sent, and waits until there is room for more. */
  async add(sending: Promise<void>): Promise<void> {
    // It is reported where it is awaited.
    sending.catch(() => {});
    this.#sending.push(sending);
    if (this.#sending.length > MAX_UNSENT) await this.#sending.shift();
  }

  /** Waits until everything has left. */
  async sent(): Promise<void> {
    await Promise.all(this.#sending.splice(0));
  }
}
