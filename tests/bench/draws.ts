/**
 * `deno task bench:draws [--model PATH | --random SHAPE] [--context N] [--short N] [--batch N] [--tokens N]`: what the settings of a
 * draw add to a token, on one engine, and what one long sequence costs many short ones: with `--short`, all but the first of a
 * batch have that context. Prompts are not computed, only known: a step takes as long after any of them.
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
  "penalties": { repetitionPenalty: 1.1, presencePenalty: 0.2, frequencyPenalty: 0.1 },
  "20 log-probabilities": { topLogprobs: 20 },
  "300 biases": { logitBias: Array.from({ length: 300 }, (_, i) => [7 * i, 0.5]) },
};

/** Mean milliseconds of a step: recording it, with the GPU's work where that is not apart, and from one to the next. */
interface StepMs {
  readonly record: number;
  readonly whole: number;
}

/** Decodes batches of sequences on one engine. */
class Driver {
  readonly #engine: Engine;
  readonly #contexts: readonly number[];
  readonly #tokens: number;
  #index = 0;
  #nextSequence = 1;

  /** @param contexts of the sequences of a batch, in whole pages */
  constructor(engine: Engine, contexts: readonly number[], tokens: number) {
    this.#engine = engine;
    this.#contexts = contexts;
    this.#tokens = tokens;
  }

  /** @param depth steps at a time */
  async measure(changes: Partial<SamplingSettings>, depth: 1 | 2): Promise<StepMs> {
    const ids = this.#contexts.map(() => this.#nextSequence++);
    const [recordings, ends]: [number[], number[]] = [[], []];
    const running: Promise<StepResult>[] = [];
    let newest = ids.map(() => 1);
    for (let i = 0; i < WARM_TOKENS + this.#tokens; i++) {
      const isTold = depth === 1 || i === 0;
      const spans = ids.map((id, at) => this.#row(id, { at, row: i, told: isTold ? newest[at] : undefined }));
      const open = i === 0 ? ids.map((id, at) => this.#opening(id, at, changes)) : [];
      running.push(this.#run({ open, spans, ...(depth === 2 && { followed: true }) }));
      if (running.length < depth) continue;
      const result = await running.shift();
      ends.push(performance.now());
      recordings.push(result?.timing.encodeMs ?? NaN);
      newest = result?.spans.map(drawnToken) ?? newest;
    }
    await Promise.all(running);
    await this.#run({ release: ids });
    const timed = ends.slice(WARM_TOKENS - 1);
    const record = recordings.slice(WARM_TOKENS).reduce((sum, ms) => sum + ms, 0) / (recordings.length - WARM_TOKENS);
    return { record, whole: ((timed.at(-1) ?? NaN) - (timed[0] ?? NaN)) / (timed.length - 1) };
  }

  #run(parts: Partial<Step>): Promise<StepResult> {
    return this.#engine.run({ index: ++this.#index, open: [], release: [], spans: [], deadlineMs: 600_000, ...parts });
  }

  #opening(sequence: number, at: number, changes: Partial<SamplingSettings>): Step["open"][number] {
    const { config: { vocabSize }, info: { sparse } } = this.#engine;
    const [random, promptTokens] = [new Random(at + 1), this.#contexts[at] ?? 0];
    return {
      sequence,
      sampling: { ...GREEDY, temperature: 0.8, seed: at, ...changes },
      sparse: { budget: sparse?.budget ?? 2 ** 20, heads: "kv_head" },
      promptTokens,
      pageOffset: 0,
      // All read the same pages.
      prefixPages: Uint32Array.from({ length: promptTokens / PAGE_TOKENS }, (_, page) => page),
      prefixTokens: random.integers(promptTokens, vocabSize),
      audited: false,
    };
  }

  #row(
    sequence: number,
    { at, row, told }: { readonly at: number; readonly row: number; readonly told: number | undefined },
  ): Span {
    const own = Math.max(...this.#contexts) / PAGE_TOKENS + at * ownPages(this.#tokens) + row / PAGE_TOKENS;
    const newPages = row % PAGE_TOKENS === 0 ? Uint32Array.of(own) : new Uint32Array();
    const attention = this.#engine.info.roles === undefined ? "dense" : "sparse";
    const from = (this.#contexts[at] ?? 0) + row;
    const span = { kind: "decode", attention, sequence, from, logits: "last", newPages } as const;
    if (told === undefined) return { ...span, tokens: Uint32Array.of(0), sampled: true };
    return { ...span, tokens: Uint32Array.of(told) };
  }
}

/** Pages that each sequence has after its prompt. */
function ownPages(tokens: number): number {
  return pagesFor(WARM_TOKENS + tokens);
}

async function run(terminal: Terminal): Promise<void> {
  const options = {
    model: { type: "string" },
    random: { type: "string" },
    context: { type: "string", default: "16384" },
    short: { type: "string" },
    batch: { type: "string", default: "1" },
    tokens: { type: "string", default: "200" },
  } as const;
  const { values } = parseArgs({ args: Deno.args, options });
  const inPages = (tokens: number) => PAGE_TOKENS * pagesFor(tokens);
  const [context, tokens, batch] = [inPages(Number(values.context)), Number(values.tokens), Number(values.batch)];
  const others = values.short === undefined ? context : inPages(Number(values.short));
  const contexts = Array.from({ length: batch }, (_, i) => (i === 0 ? context : others));
  const model = values.random === undefined ? { directory: values.model ?? TIDE } : { random: values.random };
  const kvTokens = Math.max(...contexts) + batch * ownPages(tokens) * PAGE_TOKENS;
  const engine = await Engine.open({ model, kvTokens });
  try {
    const driver = new Driver(engine, contexts, tokens);
    terminal.line(`${engine.info.digest.slice(0, 20)}, ${engine.info.adapter} (${engine.info.provider})`);
    terminal.line(`context ${context}, batch ${batch}, others ${others}; ms a step, mean of ${tokens}`);
    for (const [name, changes] of Object.entries(SETTINGS)) {
      for (const depth of [1, 2] as const) {
        const { record, whole } = await driver.measure(changes, depth);
        const how = depth === 1 ? "step by step" : "one ahead";
        terminal.line(`${name.padEnd(22)}${how.padEnd(14)}recording ${record.toFixed(2)}, whole ${whole.toFixed(2)}`);
      }
    }
  } finally {
    await engine.close();
  }
}

if (import.meta.main) await run(processTerminal());
