/**
 * Keys and values of a batch that one worker computes, on their way to the others: those of a prompt layer by layer while later
 * layers are computed, those of a few rows all together when the step is read. They are put where they are kept as soon as they
 * arrive. Knows rows and layers; knows nothing of connections.
 */

import { copyReplicaRows, ENTRY_WORDS } from "../../kernels/attention/replica_rows.ts";
import type { ReadRequest } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { ExchangePoint } from "../exchange.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import type { Pass, PassLayer } from "./pass.ts";
import type { PassProgress } from "./pass_progress.ts";
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
  const words = new Uint32Array(count * ENTRY_WORDS);
  let at = 0;
  for (const [number, { from, rows }] of pieces.entries()) {
    for (let position = from; position < from + rows; position++) {
      for (let head = 0; head < kvHeads; head++, at += ENTRY_WORDS) {
        words[at] = number;
        words[at + 1] = head;
        words[at + 2] = position;
      }
    }
  }
  const entries = scratch.take(`entries of worker ${computer}`, "u32", [count, ENTRY_WORDS]);
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

/** Brings the keys and values of a layer together that its rows have been appended in. */
export function packKeys({ model }: Pass, layer: PassLayer, places: KeyPlaces): void {
  copyRows(model, layer, { ...places, direction: "pack" });
}

/** Sends the packed keys and values of a layer. */
export async function sendKeys(pass: Pass, layer: PassLayer, { unsent, ...places }: KeyPlaces & {
  readonly unsent: UnsentKeys;
}): Promise<void> {
  const { model, batch } = pass;
  const sending = model.exchange.keys(pass.pointAt(layer), batch.computer ?? 0, rowsOf(model, places));
  if (sending !== undefined) await unsent.add(sending);
}

/** The packed keys and values of all layers. */
export function packedKeys({ config: { headDim } }: LoadedModel, { transit, count, layers }: KeyPlaces): ReadRequest {
  return { tensor: transit, byteLength: count * layers * headDim * 4 };
}

/** Takes the keys and values of a batch that another worker computes. */
export async function receiveKeys(
  model: LoadedModel,
  batch: RowBatch,
  { point, progress }: { readonly point: Omit<ExchangePoint, "layer">; readonly progress: PassProgress },
): Promise<void> {
  const places = placeKeys(model, batch, point.batch);
  for (const [index, kv] of model.slice.layers.entries()) {
    if (index % places.layers === 0) {
      await model.exchange.keys({ ...point, layer: index }, batch.computer ?? 0, rowsOf(model, places));
    }
    copyRows(model, { index, kv }, { ...places, direction: "unpack" });
    progress.reach(index);
  }
}

function rowsOf({ config }: LoadedModel, { transit, count, layers }: KeyPlaces) {
  const rowBytes = layers * config.headDim * 4;
  return { tensor: transit, rowBytes, rows: count };
}

function copyRows(
  { commands, config: { heads, kvHeads, headDim } }: LoadedModel,
  { index, kv }: Pick<PassLayer, "index" | "kv">,
  { pages, entries, count, transit, layers, direction }: KeyPlaces & { readonly direction: "pack" | "unpack" },
): void {
  const { table: pageTable, maxPages } = pages;
  const shape = { heads, kvHeads, headDim };
  const range = { first: 0, rows: count };
  copyReplicaRows(commands, {
    kv,
    shape,
    pageTable,
    maxPages,
    entries,
    transit,
    layers,
    layer: index % layers,
    direction,
    range,
  });
}
