/**
 * `deno task bench:grammar [--model PATH | --random SHAPE] [--context N] [--tokens N] [--rounds N]`: what a grammar adds to the time of a
 * token, on the running service: free answers and answers in JSON in turns, alone and four at a time.
 */

import process from "node:process";
import { parseArgs } from "node:util";

import { processTerminal, type Terminal } from "../../router/terminal.ts";
import { LiveService } from "../support/live_service.ts";

/** Never complete within the tokens that are asked for; its masks change with every token. */
const SCHEMA = {
  type: "array",
  minItems: 1000,
  items: {
    type: "object",
    properties: { name: { type: "string" }, count: { type: "integer" }, tags: { type: "array" } },
    required: ["name", "count", "tags"],
  },
};

interface Asked {
  readonly prompt: readonly number[];
  readonly tokens: number;
  readonly isMasked: boolean;
}

/** Milliseconds between two tokens of one answer. */
async function tokenMs(live: LiveService, { prompt, tokens, isMasked }: Asked, seed: number): Promise<number> {
  const reader = await live.stream("/v1/completions", {
    prompt,
    seed,
    "max_tokens": tokens,
    "ignore_eos": true,
    // Tokens of random weights often bring no text, but their ids come with each of them.
    "return_token_ids": true,
    ...(isMasked && { "guided_json": SCHEMA }),
  });
  const { events } = await reader.finish();
  const drawn = events.flatMap((event) => {
    if (event.kind !== "chunk") return [];
    const ids = event.chunk.choices?.[0]?.token_ids?.length ?? 0;
    return Array.from({ length: ids }, () => event.atMs);
  });
  const [first, last] = [drawn[0], drawn.at(-1)];
  if (first === undefined || last === undefined || drawn.length !== tokens) {
    throw new Error(`Cannot measure: ${drawn.length} of ${tokens} tokens came: ${reader.error?.message}`);
  }
  return (last - first) / (tokens - 1);
}

const middle = (...values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

/** Free and masked answers in turns, and each first every other time: other work on the machine meets both alike. */
async function compare(live: LiveService, terminal: Terminal, asked: Omit<Asked, "isMasked">, options: {
  readonly answers: number;
  readonly rounds: number;
}): Promise<void> {
  const { answers, rounds } = options;
  const [free, masked]: [number[], number[]] = [[], []];
  const cpu = { free: 0, masked: 0 };
  for (let round = 0; round < rounds; round++) {
    for (const isMasked of round % 2 === 0 ? [true, false] : [false, true]) {
      const seeds = Array.from({ length: answers }, (_, i) => round * answers + i);
      const before = process.cpuUsage();
      const took = await Promise.all(seeds.map((seed) => tokenMs(live, { ...asked, isMasked }, seed)));
      const { user, system } = process.cpuUsage(before);
      cpu[isMasked ? "masked" : "free"] += (user + system) / 1000;
      (isMasked ? masked : free).push(Math.max(...took));
    }
  }
  const shown = (values: readonly number[]) => values.map((ms) => ms.toFixed(2)).join(" ");
  terminal.line(`${answers} at a time, ms a token`);
  terminal.line(`  free    ${shown(free)}`);
  terminal.line(`  masked  ${shown(masked)}`);
  // What else the machine does makes rounds slower, never faster: the fastest ones say most.
  for (const [name, of] of [["fastest round", Math.min], ["median", middle]] as const) {
    const [a, b] = [of(...free), of(...masked)];
    const added = `${(b - a).toFixed(2)} ms a token (${((b / a - 1) * 100).toFixed(1)} %)`;
    terminal.line(`  ${name}: free ${a.toFixed(2)}, masked ${b.toFixed(2)}: a mask adds ${added}`);
  }
  // All of the router's threads, those of grammars among them; workers are other processes.
  const [a, b] = [cpu.free, cpu.masked].map((ms) => ms / (rounds * answers * asked.tokens)) as [number, number];
  terminal.line(`  CPU of the router: free ${a.toFixed(2)}, masked ${b.toFixed(2)}: a mask adds ${(b - a).toFixed(2)}`);
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      model: { type: "string" },
      random: { type: "string" },
      context: { type: "string", default: "512" },
      tokens: { type: "string", default: "64" },
      rounds: { type: "string", default: "15" },
    },
  });
  const terminal = processTerminal();
  const [context, tokens, rounds] = [values.context, values.tokens, values.rounds].map(Number) as [
    number,
    number,
    number,
  ];
  await using live = await LiveService.start({
    kvTokens: 4 * (context + tokens + 128),
    ...(values.model !== undefined && { model: values.model }),
    ...(values.random !== undefined && { random: values.random }),
  });
  const prompt = Array.from({ length: context }, (_, i) => 8 + (i * 37 + (i >> 3) * 11) % 500);
  // Fills the prefix cache, compiles the grammar, warms up.
  await tokenMs(live, { prompt, tokens, isMasked: true }, 1);
  await tokenMs(live, { prompt, tokens, isMasked: false }, 1);
  const { id, adapter } = live.model;
  terminal.line(`${id} on ${adapter}, context ${context}, ${rounds} rounds of ${tokens} tokens`);
  for (const answers of [1, 4]) await compare(live, terminal, { prompt, tokens }, { answers, rounds });
}
