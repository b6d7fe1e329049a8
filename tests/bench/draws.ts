/**
 * `deno task bench:draws [--model PATH | --random SHAPE] [--context N] [--tokens N] [--batch N]`: what the settings of a draw add to
 * a token, on one engine: milliseconds of its host, and of the whole step. Prompts are not computed, only known: a draw
 * takes the same time after any of them.
 */

import { parseArgs } from "node:util";

import { Engine } from "../../engine/engine.ts";
import { GREEDY } from "../../engine/evaluation/hand_session.ts";
import {
  drawnToken,
  PAGE_TOKENS,
  pagesFor,
  type SamplingSettings,
  type Span,
  type Step,
  type StepResult,
} from "../../engine/span.ts";
import { processTerminal, type Terminal } from "../../router/terminal.ts";
import { TIDE } from "../support/model_directory.ts";
import { Random } from "../support/random.ts";

/** Left out of the means: programs are recorded, and the JavaScript is compiled. */
const WARM_TOKENS = 50;

/** What requests ask for, by name. */
const SETTINGS: Readonly<Record<string, Partial<SamplingSettings>>> = {
  "plain, T 0.8": {},
  "20 log-probabilities": { topLogprobs: 20 },
  "300 biases": { logitBias: Array.from({ length: 300 }, (_, i) => [7 * i, 0.5]) },
  "penalties": { repetitionPenalty: 1.1, presencePenalty: 0.2, frequencyPenalty: 0.1 },
};

/** A step whose result is awaited, and one more recorded meanwhile where `isAhead`. */
interface Asked {
  readonly context: number;
  readonly tokens: number;
  readonly batch: number;
  readonly isAhead: boolean;
}

/** Milliseconds of one token. */
interface TokenMs {
  readonly host: number;
  readonly whole: number;
}

class Driver {
  readonly #engine: Engine;
  readonly #ownPages: number;
  #index = 0;
  #sequence = 0;

  /** @param ownPages that each sequence has after its prompt */
  constructor(engine: Engine, ownPages: number) {
    this.#engine = engine;
    this.#ownPages = ownPages;
  }

  /** Decodes, and takes the time of each step. */
  async measure(changes: Partial<SamplingSettings>, { context, tokens, batch, isAhead }: Asked): Promise<TokenMs> {
    const ids = Array.from({ length: batch }, () => ++this.#sequence);
    const hosts: number[] = [];
    const ends: number[] = [];
    const take = async (step: Step) => {
      const startMs = performance.now();
      const result = await this.#engine.run(step);
      ends.push(performance.now());
      const { waitMs, totalMs } = result.timing;
      hosts.push(isAhead ? result.timing.encodeMs : performance.now() - startMs - waitMs);
      return { result, totalMs };
    };
    let newest = ids.map(() => 1);
    const running: Promise<{ readonly result: StepResult }>[] = [];
    for (let i = 0; i < WARM_TOKENS + tokens; i++) {
      const told = isAhead && i > 0 ? undefined : newest;
      const spans = ids.map((id, at) => this.#row(id, { from: context + i, at, told: told?.[at], context }));
      const open = i === 0 ? ids.map((id, at) => this.#opening(id, { changes, context, at })) : [];
      running.push(take(this.#step({ open, spans, ...(isAhead && { followed: true }) })));
      if (running.length < (isAhead ? 2 : 1)) continue;
      const ended = await running.shift();
      newest = ended?.result.spans.map(drawnToken) ?? newest;
    }
    await Promise.all(running);
    await this.#engine.run(this.#step({ release: ids }));
    const warm = ends.slice(WARM_TOKENS);
    return {
      host: mean(hosts.slice(WARM_TOKENS)),
      whole: ((warm.at(-1) ?? NaN) - (warm[0] ?? NaN)) / (warm.length - 1),
    };
  }

  #step(parts: Partial<Step>): Step {
    return { index: ++this.#index, open: [], release: [], spans: [], deadlineMs: 600_000, ...parts };
  }

  #opening(
    sequence: number,
    { changes, context, at }: { changes: Partial<SamplingSettings>; context: number; at: number },
  ): Step["open"][number] {
    const random = new Random(at + 1);
    const { vocabSize } = this.#engine.config;
    // All sequences read the same pages: what they hold takes no different time.
    const prefixPages = Uint32Array.from({ length: context / PAGE_TOKENS }, (_, page) => page);
    return {
      sequence,
      sampling: { ...GREEDY, temperature: 0.8, seed: at, ...changes },
      sparse: { budget: this.#engine.info.sparse?.budget ?? 2 ** 20, heads: "kv_head" },
      promptTokens: context,
      pageOffset: 0,
      prefixPages,
      prefixTokens: Uint32Array.from({ length: context }, () => random.integer(vocabSize)),
      audited: false,
    };
  }

  #row(
    sequence: number,
    { from, at, told, context }: { from: number; at: number; told: number | undefined; context: number },
  ): Span {
    const [place, own] = [from / PAGE_TOKENS, (from - context) / PAGE_TOKENS];
    const first = context / PAGE_TOKENS + at * this.#ownPages;
    const newPages = Number.isInteger(place) ? Uint32Array.of(first + own) : new Uint32Array();
    const attention = this.#engine.info.roles === undefined ? "dense" : "sparse";
    const row = { kind: "decode", attention, sequence, from, logits: "last", newPages } as const;
    if (told === undefined) return { ...row, tokens: Uint32Array.of(0), sampled: true };
    return { ...row, tokens: Uint32Array.of(told) };
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

async function run(terminal: Terminal): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      model: { type: "string" },
      random: { type: "string" },
      context: { type: "string", default: "16384" },
      tokens: { type: "string", default: "200" },
      batch: { type: "string", default: "1" },
    },
  });
  const [context, tokens, batch] = [Number(values.context), Number(values.tokens), Number(values.batch)];
  const ownPages = pagesFor(tokens + WARM_TOKENS);
  const model = values.random === undefined ? { directory: values.model ?? TIDE } : { random: values.random };
  const engine = await Engine.open({ model, kvTokens: context + batch * ownPages * PAGE_TOKENS });
  try {
    const driver = new Driver(engine, ownPages);
    terminal.line(`${engine.info.digest.slice(0, 20)}, ${engine.info.adapter} (${engine.info.provider})`);
    terminal.line(`context ${context}, batch ${batch}, mean of ${tokens} steps; ms a step`);
    for (const [name, changes] of Object.entries(SETTINGS)) {
      const alone = await driver.measure(changes, { context, tokens, batch, isAhead: false });
      terminal.line(`${name.padEnd(22)} step by step: host ${alone.host.toFixed(2)}, whole ${alone.whole.toFixed(2)}`);
      const ahead = await driver.measure(changes, { context, tokens, batch, isAhead: true });
      terminal.line(`${name.padEnd(22)} run ahead:    host ${ahead.host.toFixed(2)}, whole ${ahead.whole.toFixed(2)}`);
    }
  } finally {
    await engine.close();
  }
}

if (import.meta.main) await run(processTerminal());
