/** What a group spends on exchanges while `bench` measures it. Knows timings of steps; runs none. */

import type { ByExchange, ExchangeTiming, StepTiming } from "../../../engine/span.ts";

/** What the lead worker spent on exchanges with its peers and the router; absent when it has no peer. */
export interface ExchangeFigures {
  /** Of a step, divided by the layers: queries or keys and values, and attention states, from own data on the host to all peers' on the GPU. */
  readonly msPerLayer: number;
  /** Of a step, divided by the layers: read-backs of own data, with the GPU work that they wait for. */
  readonly readMsPerLayer: number;
  /** Of a step, by kind. */
  readonly ms: ByExchange;
  /** Sent to all peers together, or to the router. */
  readonly bytesPerToken: ByExchange;
  /** Share of what select layers chose that the stores of replicas lacked; absent where sparse layers exchange states. */
  readonly missing?: number;
}

/** Means over steps of what they report about exchanges; undefined when they report nothing. */
export function exchangeFigures(
  timings: readonly StepTiming[],
  { layers, tokens }: { readonly layers: number; readonly tokens: number },
): ExchangeFigures | undefined {
  const exchanges = timings.flatMap(({ exchange }) => exchange === undefined ? [] : [exchange]);
  if (exchanges.length === 0) return undefined;
  const counts = timings.flatMap(({ replicas }) => replicas === undefined ? [] : [replicas]);
  const sum = (of: "chosen" | "missing") => counts.reduce((total, count) => total + count[of], 0);
  const ms = scaled(exchanges, ({ ms }) => ms, 1 / exchanges.length);
  return {
    msPerLayer: (ms.queries + ms.keys + ms.states) / layers,
    readMsPerLayer: exchanges.reduce((sum, { readMs }) => sum + readMs, 0) / exchanges.length / layers,
    ms,
    bytesPerToken: scaled(exchanges, ({ bytes }) => bytes, 1 / tokens),
    ...(counts.length > 0 && { missing: sum("missing") / sum("chosen") }),
  };
}

function scaled(
  exchanges: readonly ExchangeTiming[],
  of: (exchange: ExchangeTiming) => ByExchange,
  factor: number,
): ByExchange {
  const total = (kind: keyof ByExchange) => factor * exchanges.reduce((sum, exchange) => sum + of(exchange)[kind], 0);
  return {
    queries: total("queries"),
    keys: total("keys"),
    states: total("states"),
    rows: total("rows"),
    candidates: total("candidates"),
    replicas: total("replicas"),
  };
}
