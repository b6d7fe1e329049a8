/**
 * What a decode step and a prompt take on a group, from few measured constants: bytes over bandwidths, operations over rates,
 * messages and round trips. Knows shapes, counts and constants; measures nothing. Milliseconds and bytes throughout.
 */

import type { ModelConfig } from "../../engine/model/model_config.ts";

/** What one card does. */
export interface Card {
  /** Of a decode step without context: weights, launches, sampling. */
  readonly denseMs: number;
  readonly sparseMs: number;
  /** At which keys and values are read. */
  readonly kvBytesPerMs: number;
  /** Operations of a prompt's matrix products and of its attention, per millisecond. */
  readonly productFlopPerMs: number;
  readonly attentionFlopPerMs: number;
  /** Left for keys and values beside weights and working memory. */
  readonly kvBytes: number;
}

/** What lies between workers. */
export interface Link {
  /** One way, of one worker. */
  readonly bytesPerMs: number;
  /** One way, beyond what both hosts do for a message. */
  readonly hopMs: number;
  /** What one message costs the thread that sends or receives it. */
  readonly messageMs: number;
  /** Of each exchange: own data from the GPU, and all others' to it. */
  readonly readBackMs: number;
  readonly uploadMs: number;
  /** What an exchange took beyond the sum of its pieces. */
  readonly unexplainedMs: number;
  /** Keys and values of a prompt, in and out together, that a worker's thread passes on: while it does, its card computes. */
  readonly keyBytesPerMs: number;
  /** Of a step that workers take together beyond their card's. */
  readonly stepMs: number;
  /** Queries and states of a prompt, likewise. */
  readonly queryBytesPerMs: number;
  /** Of a row that the lead computes for all beyond its card's: slices attended to apart, and what the others get. */
  readonly leadMs: number;
  readonly leadSparseMs: number;
  /** A candidate at the router: received, ranked and, where it is chosen, sent on. */
  readonly candidateMs: number;
}

/** What is decoded, and how. */
export interface DecodeLoad {
  readonly context: number;
  readonly workers: number;
  /** Whether every worker has copies of all that the others hold of the sequence. @default false */
  readonly copied?: boolean;
  /** Undefined: dense. */
  readonly sparse?: {
    readonly budget: number;
    /** Share of a selection that the stores of copies lack; undefined: sparse layers exchange states. */
    readonly missing?: number;
  };
}

/** The model whose shape counts, and the layers that choose. */
export interface Shape {
  readonly config: Pick<ModelConfig, "layers" | "hidden" | "ffn" | "heads" | "kvHeads" | "headDim">;
  /** Layers that attend to everything when a row is sparse. */
  readonly wholeLayers: number;
  readonly selectLayers: number;
}

const F32 = 4;
const F16 = 2;

/** Bytes of one position's keys and values in one layer. */
function kvRowBytes({ kvHeads, headDim }: Shape["config"]): number {
  return 2 * kvHeads * headDim * F16;
}

/** One exchange of attention states of one row: each worker sends its own to every other. */
export function exchangeMs({ config: { heads, headDim } }: Shape, link: Link, workers: number): number {
  if (workers === 1) return 0;
  return roundMs(link, workers, heads * (headDim + 1) * F32);
}

/** The time of a token. */
export function decodeMs(shape: Shape, card: Card, link: Link, load: DecodeLoad): number {
  const { config, wholeLayers, selectLayers } = shape;
  const { context, workers, sparse, copied = false } = load;
  const sparseLayers = sparse === undefined ? 0 : config.layers - wholeLayers;
  // What is copied the lead reads alone; else each worker reads its share.
  const readers = copied ? 1 : workers;
  const setReaders = sparse?.missing === undefined ? readers : 1;
  const rows = (config.layers - sparseLayers) * context / readers + sparseLayers * (sparse?.budget ?? 0) / setReaders;
  const computeMs = (sparse === undefined ? card.denseMs : card.sparseMs) +
    rows * kvRowBytes(config) / card.kvBytesPerMs;
  if (workers === 1) return computeMs;
  if (copied) return computeMs + (sparse === undefined ? link.leadMs : link.leadSparseMs);
  const choosing = sparse === undefined ? 0 : selectLayers * selectMs(shape, link, { workers, budget: sparse.budget });
  const step = computeMs + choosing + link.stepMs;
  const exchange = exchangeMs(shape, link, workers);
  if (sparse?.missing === undefined) return step + config.layers * exchange;
  const missing = copiedBytes(shape, sparse.budget, sparse.missing);
  // Every worker sends what it owns of the rows to every other, once after each choice.
  const rowsMs = selectLayers * roundMs(link, workers, missing / selectLayers / workers);
  return step + wholeLayers * exchange + rowsMs;
}

/** Whether a context finds room as a whole on every card, its own pages and copies of the others'. */
export function copiesFit(shape: Shape, card: Card, { context }: Pick<DecodeLoad, "context">): boolean {
  return cardsFor(shape, card, context) <= 1;
}

/** Bytes of the rows that one token's selections lack, over all sparse layers. */
export function copiedBytes({ config, wholeLayers }: Shape, budget: number, missing: number): number {
  return missing * budget * (config.layers - wholeLayers) * kvRowBytes(config);
}

/** Candidates of all workers at the router, and the choice back. */
export function selectMs(
  { config: { kvHeads } }: Shape,
  link: Link,
  { workers, budget }: { readonly workers: number; readonly budget: number },
): number {
  const candidates = budget * kvHeads;
  // The router's thread takes one message after the other; positions and values up, positions down.
  const bytes = workers * candidates * 3 * F32;
  return 2 * link.hopMs + 2 * workers * link.messageMs + bytes / link.bytesPerMs +
    workers * candidates * link.candidateMs;
}

/** What travels while a prompt is shared out. */
export type PrefillExchange = "queries" | "keys";

/** The time of a prompt in chunks. */
export function prefillMs(
  shape: Shape,
  card: Card,
  link: Link,
  { tokens, workers, chunk, moves }: {
    readonly tokens: number;
    readonly workers: number;
    readonly chunk: number;
    /** `queries`: those of each row to all, and states back; `keys`: keys and values of everything to all. */
    readonly moves: PrefillExchange;
  },
): { readonly computeMs: number; readonly linkMs: number } {
  const { config } = shape;
  const { layers, heads, headDim, hidden, ffn } = config;
  const qkv = (heads + 2 * config.kvHeads) * headDim;
  const weights = layers * (hidden * qkv + heads * headDim * hidden + 3 * hidden * ffn);
  const productFlop = 2 * weights * tokens;
  const attentionFlop = 4 * layers * heads * headDim * tokens * tokens / 2;
  const computeMs = (productFlop / card.productFlopPerMs + attentionFlop / card.attentionFlopPerMs) / workers;
  if (workers === 1) return { computeMs, linkMs: 0 };
  // Sent by one worker: of its rows, to each of the others; of the others' rows, its states.
  const own = tokens / workers;
  const queryBytes = own * heads * headDim * F32 * (workers - 1);
  const stateBytes = (tokens - own) * heads * (headDim + 1) * F32;
  const keyBytes = own * kvRowBytes(config) * (workers - 1);
  const bytes = layers * (moves === "queries" ? queryBytes + stateBytes : keyBytes);
  const rounds = layers * Math.ceil(tokens / chunk) * (moves === "queries" ? 2 : 1);
  const rate = moves === "queries" ? link.queryBytesPerMs : link.bytesPerMs;
  return { computeMs, linkMs: bytes / rate + rounds * roundMs(link, workers, 0) };
}

/**
 * The time of a prompt whose chunks are dealt: in a step each worker computes one, and passes the keys and values of all on, until
 * either is the longer. The last worker begins when it has the first layer of those before it.
 */
export function dealtPrefillMs(
  shape: Shape,
  card: Card,
  link: Link,
  { tokens, workers, chunk }: { readonly tokens: number; readonly workers: number; readonly chunk: number },
): number {
  const { config } = shape;
  const steps = Math.ceil(tokens / chunk);
  const { computeMs } = prefillMs(shape, card, link, { tokens, workers, chunk, moves: "keys" });
  if (workers === 1) return computeMs;
  const stepMs = computeMs / steps;
  // Own ones once, to all, and those of all others.
  const bytes = config.layers * chunk * kvRowBytes(config);
  const beginMs = (workers - 1) * (stepMs / config.layers + link.readBackMs + link.uploadMs + link.hopMs);
  return steps * (Math.max(stepMs, bytes / link.keyBytesPerMs) + beginMs + link.stepMs);
}

/** Cards that hold a context of so many tokens. */
export function cardsFor({ config }: Shape, card: Card, context: number): number {
  return Math.ceil(context * config.layers * kvRowBytes(config) / card.kvBytes);
}

/** All to all: each of the workers sends every other one so many bytes, on a thread that does one thing at a time. */
function roundMs(link: Link, workers: number, bytes: number): number {
  const others = workers - 1;
  const host = link.readBackMs + link.uploadMs + link.unexplainedMs + 2 * others * link.messageMs;
  return host + link.hopMs + others * bytes / link.bytesPerMs;
}
