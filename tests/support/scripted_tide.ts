/** A tide without a model: rows at a steady pace, with choices as a model makes them. Knows the contract; computes nothing. */

import type { SelectionReader } from "../../router/scheduling/selection_view.ts";
import { TideFeed } from "../../router/scheduling/tide_feed.ts";
import { Random } from "./random.ts";

/** What the feed shows. */
export interface TideScript {
  readonly promptTokens: number;
  /** Time between rows. */
  readonly everyMs: number;
  readonly budget: number;
  /** Select layers, and sets of heads in each. */
  readonly layers: readonly number[];
  readonly sets: number;
}

/** Every request is watched by the same script; a feed's rows end when its reader leaves, or after a minute. */
export function scriptedTide(script: TideScript): SelectionReader {
  return { read: () => undefined, watch: () => feedOf(script) };
}

const MAX_MS = 60_000;

function feedOf({ promptTokens, everyMs, budget, layers, sets }: TideScript): TideFeed {
  const random = new Random(1);
  let position = promptTokens;
  const recent = budget / 4;
  const timer = setInterval(() => {
    const chosen = () => {
      const positions = new Set([0, 1, 2, 3]);
      for (let i = 0; i < recent; i++) positions.add(position - i);
      while (positions.size < budget) positions.add(random.integer(position));
      return Uint32Array.from(positions).sort();
    };
    const rows = layers.map((layer) => ({ layer, position, sets: Array.from({ length: sets }, chosen) }));
    feed.push({ kind: "row", position, rows: 1, attention: "sparse", layers: rows });
    position++;
    if ((position - promptTokens) * everyMs >= MAX_MS) finish();
  }, everyMs);
  const feed = new TideFeed(() => clearInterval(timer));
  const finish = () => {
    clearInterval(timer);
    feed.end();
  };
  feed.push({
    kind: "layout",
    promptTokens,
    pageTokens: 64,
    owners: [0],
    layers: 12,
    selectLayers: layers,
    sparse: { budget, heads: "kv_head" },
    sinks: 4,
    recent,
  });
  return feed;
}
