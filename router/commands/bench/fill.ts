/**
 * How the cache of a measured sequence is filled: by its own prompt, which is measured too, or with pages that short
 * sequences made. Knows prompts and pages; knows nothing of decoding.
 *
 * The prompt of a long context takes minutes on a large model, because every row of it attends to all rows before.
 * Copied pages cost as much as many short prompts: their keys and values are the model's own and differ, only
 * their rotary positions and what they attended to are those of a short text. Dense attention reads them just as fast.
 * In a context beyond 131,072 tokens they come again and again: more than any cache of a GPU holds lies between.
 */

import { at } from "../../../kernels/at.ts";
import type { Session, SessionHost, SessionOptions } from "../../../engine/evaluation/hand_session.ts";
import type { PageMap } from "../../../engine/page_map.ts";
import { MIN_SHARED_ROWS } from "../../../engine/pass/row_ranges.ts";
import { PAGE_TOKENS } from "../../../engine/span.ts";
import { type ExchangeFigures, exchangeFigures } from "./exchange.ts";
import { randomTokens, timedStep } from "./steps.ts";

/** A prompt that was read. */
export interface PrefillFigures {
  readonly tokensPerSecond: number;
  /** From the first step to the first token. */
  readonly firstTokenMs: number;
  readonly exchange?: ExchangeFigures;
}

/** A sequence whose cache holds a context. */
export interface FilledSession {
  readonly session: Session;
  /** Absent when its pages are copied. */
  readonly prefill?: PrefillFigures;
}

/** Fills caches; `close` gives up what it keeps for the next one. */
export interface Filling {
  /** @param turn sequences of different ones begin on different pages, where pages are shared @default 0 */
  open(context: number, turn?: number): Promise<FilledSession>;
  close(): Promise<void>;
}

/** What a cache is filled on. */
export interface FillOptions {
  readonly host: SessionHost;
  /** Of the host's workers. */
  readonly map: PageMap;
  /** Of the sequences that are opened. */
  readonly session: SessionOptions & { readonly pageOffset: number };
  /** Prompt tokens per prefill step. */
  readonly chunk: number;
  /** Of what is read: the share of a prompt, or of all pages. */
  readonly onProgress: (fraction: number) => void;
}

/** Reads a prompt for every sequence. */
export function prefilled(options: FillOptions): Filling {
  const { host, session: settings, chunk, onProgress } = options;
  const { layers, vocabSize } = host.runner.info;
  return {
    async open(context) {
      const session = host.open(settings);
      const tokens = randomTokens(context, vocabSize);
      const timings = [];
      const start = performance.now();
      for (let at = 0; at < context; at += chunk) {
        const end = Math.min(context, at + chunk);
        const logits = end === context ? "last" : "none";
        const span = { kind: "prefill", tokens: tokens.subarray(at, end), logits } as const;
        timings.push((await timedStep(host, session, span)).timing);
        onProgress(end / context);
      }
      const firstTokenMs = performance.now() - start;
      const exchange = exchangeFigures(timings, { layers, tokens: context });
      const prefill = { tokensPerSecond: context / (firstTokenMs / 1000), firstTokenMs };
      return { session, prefill: { ...prefill, ...(exchange === undefined ? {} : { exchange }) } };
    },
    close: () => Promise.resolve(),
  };
}

/** Sequences that begin on different ones of the same pages: decoding together, they must not find each other's in a cache. */
const TURNS = 8;

/** The same pages from another one on; by whole periods of the page map, so that each stays on its place's owner. */
function turned(pages: readonly number[], { period, turn }: { readonly period: number; readonly turn: number }) {
  const whole = pages.length - pages.length % period;
  const by = period * Math.floor(turn % TURNS * whole / TURNS / period);
  return [...pages.slice(by, whole), ...pages.slice(0, by), ...pages.slice(whole)];
}

/** Tokens of a short sequence at most, in whole pages. */
export const SHORT_TOKENS = 512;

/** Most tokens of all short sequences: 512 MB of an 8B model's keys and values a layer, ten times what a GPU caches. */
const MAX_DISTINCT_TOKENS = 131_072;

/** Pages of a short sequence: a group computes so many rows on every worker, and exchanges nothing for them while it has room for copies. */
function shortPages({ workers }: PageMap): number {
  const shared = MIN_SHARED_ROWS * workers;
  const tokens = workers === 1 ? SHORT_TOKENS : Math.min(SHORT_TOKENS, shared - PAGE_TOKENS);
  return tokens / PAGE_TOKENS;
}

/** Pages of all short sequences: of more, those that come again must lie on the same worker as the first time. */
function distinctPages(pages: number, { period }: PageMap): number {
  const most = MAX_DISTINCT_TOKENS / PAGE_TOKENS;
  return Math.min(pages, most - most % period);
}

/**
 * Makes the pages of the longest context once; every sequence starts on as many of them as its context fills, and reads
 * the few tokens after the last full page itself. Only full pages are shared, so that they are never written.
 */
export async function copied(
  options: FillOptions & { readonly longest: number },
): Promise<Filling> {
  const { host, map, session: settings, longest, onProgress } = options;
  const { vocabSize } = host.runner.info;
  const tokens = randomTokens(longest, vocabSize);
  const pages = distinctPages(Math.floor(longest / PAGE_TOKENS), map);
  const holders: Session[] = [];
  for (let page = 0; page < pages; page += shortPages(map)) {
    const end = Math.min(pages, page + shortPages(map));
    const own = tokens.subarray(page * PAGE_TOKENS, end * PAGE_TOKENS);
    holders.push(await shortSequence(options, { page, tokens: own }));
    onProgress(end / pages);
  }
  const distinct = holders.flatMap((holder) => holder.pages);
  return {
    async open(context, turn = 0) {
      const full = Math.floor(context / PAGE_TOKENS);
      const placed = Array.from({ length: full }, (_, place) => at(distinct, place % distinct.length));
      const session = host.openOn(turned(placed, { period: map.period, turn }), settings);
      const rest = tokens.subarray(full * PAGE_TOKENS, context);
      if (rest.length > 0) await session.prefill(rest, "none");
      return { session };
    },
    async close() {
      for (const holder of holders) await holder.close();
    },
  };
}

/**
 * Reads a short prompt from position 0 on, on the workers that own its pages' places in the long sequence.
 * @param page its first page's place there
 * @returns a holder of its pages that no worker knows: sequences are many and workers' slots are few
 */
async function shortSequence(
  { host, map, session: { pageOffset } }: FillOptions,
  { page, tokens }: { readonly page: number; readonly tokens: Uint32Array },
): Promise<Session> {
  const short = host.open({ pageOffset: (pageOffset + page) % map.period });
  try {
    await short.prefill(tokens, "none");
    return host.openOn(short.pages);
  } finally {
    await short.close();
  }
}
