/** `GET /v1/sequences/{id}/tide`: what a running sequence reads, as it reads it. Knows response ids and the wire form. */

import { RequestError } from "../errors.ts";
import type { SelectionReader } from "../scheduling/selection_view.ts";
import type { TideEvent } from "../scheduling/tide_event.ts";
import type { TideFeed } from "../scheduling/tide_feed.ts";
import type { Limits } from "./limits.ts";
import { readChoice } from "./selection_route.ts";
import { SSE_HEADERS, sseEvent, sseStream } from "./sse.ts";

/** Which sequence is watched, and for how long. */
export interface TideRequest {
  /** Of the response. */
  readonly id: string;
  /** Of the choice as the client wrote it; undefined: the first. */
  readonly index: string | undefined;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
}

/** @throws {RequestError} `invalid_request`, `not_found`, `rate_limit_exceeded` */
export function tideAnswer(
  { id, index, signal }: TideRequest,
  selections: SelectionReader,
  { keepAliveMs, stallMs }: Pick<Limits, "keepAliveMs" | "stallMs">,
): Response {
  const feed = readChoice(id, index, (request) => selections.watch(request));
  if (feed === undefined) {
    const name = id.length <= 100 ? `"${id}"` : "of that id";
    throw new RequestError(
      "not_found",
      `Cannot watch choice ${index ?? 0} of response ${name}: none is running or ended recently`,
    );
  }
  const body = sseStream(frames(feed), {
    keepAliveMs,
    stallMs,
    signal,
    onKeepAlive: () => {},
    // A generator that was not begun skips its `finally`.
    onCancel: () => void feed.return(),
  });
  return new Response(body, { headers: SSE_HEADERS });
}

async function* frames(feed: TideFeed): AsyncGenerator<string> {
  for await (const event of feed) yield sseEvent(event.kind, bodyOf(event));
  yield sseEvent("end", {});
}

function bodyOf(event: TideEvent): Readonly<Record<string, unknown>> {
  if (event.kind === "layout") {
    const { promptTokens, pageTokens, owners, layers, selectLayers, sparse, sinks, recent } = event;
    return {
      prompt_tokens: promptTokens,
      page_tokens: pageTokens,
      owners,
      layers,
      select_layers: selectLayers,
      budget: sparse.budget,
      coverage: sparse.coverage ?? null,
      heads: sparse.heads,
      sinks,
      recent,
    };
  }
  const { position, rows, attention, layers, skipped } = event;
  return {
    position,
    rows,
    attention,
    skipped,
    layers: layers.map(({ layer, sets }) => ({ layer, sets: sets.map((positions) => [...positions]) })),
  };
}
