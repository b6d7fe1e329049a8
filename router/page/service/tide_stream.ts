/** The events of `/v1/sequences/{id}/tide`, in the page's own words. */

import { readEvents } from "./event_stream.ts";
import type { Service } from "./service.ts";

/** How a sequence lies on the workers, and how its rows attend. */
export interface TideLayout {
  readonly kind: "layout";
  readonly promptTokens: number;
  readonly pageTokens: number;
  /** Worker that holds each page; page i is with entry i modulo the length. */
  readonly owners: readonly number[];
  readonly layers: number;
  readonly selectLayers: readonly number[];
  readonly budget: number;
  /** Positions that are always read: the first ones, and the newest. */
  readonly sinks: number;
  readonly recent: number;
}

/** What one decoded row has read. */
export interface TideRow {
  readonly kind: "row";
  readonly position: number;
  readonly rows: number;
  readonly attention: "dense" | "sparse" | "correction";
  readonly layers: readonly { readonly layer: number; readonly sets: readonly (readonly number[])[] }[];
}

/** In the order they come. */
export type TideEvent = TideLayout | TideRow;

/** @throws {ServiceError} as `Service.ask` does; when the connection breaks it ends */
export async function* streamTide(service: Service, id: string, signal: AbortSignal): AsyncGenerator<TideEvent> {
  const { body } = await service.ask(`/v1/sequences/${encodeURIComponent(id)}/tide`, undefined, signal);
  if (body === null) return;
  for await (const { name, data } of readEvents(body)) {
    if (name === "layout") yield layoutOf(JSON.parse(data));
    if (name === "row") yield { kind: "row", ...JSON.parse(data) };
    if (name === "end") return;
  }
}

// deno-lint-ignore no-explicit-any -- the service's own form, checked by its tests
function layoutOf(data: any): TideLayout {
  return {
    kind: "layout",
    promptTokens: data.prompt_tokens,
    pageTokens: data.page_tokens,
    owners: data.owners,
    layers: data.layers,
    selectLayers: data.select_layers,
    budget: data.budget,
    sinks: data.sinks,
    recent: data.recent,
  };
}
