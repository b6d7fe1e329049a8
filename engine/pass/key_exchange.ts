/**
 * Keys and values of a batch that one worker computes, on their way to the others: those of a prompt layer by layer while later
 * layers are computed, those of a few rows all together when the step is read. They are put where they are kept as soon as they
 * arrive. Knows rows and layers; knows nothing of connections.
 */

import { copyReplicaRows } from "../../kernels/attention/replica_rows.ts";
import type { ReadRequest } from "../../kernels/gpu.ts";
import type { ExchangePoint } from "../exchange.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import { type KeyPlaces, placeKeys, type UnsentKeys } from "./key_places.ts";
import type { Pass, PassLayer } from "./pass.ts";
import type { PassProgress } from "./pass_progress.ts";

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
