/**
 * What HTTP may expect of every `Generator`: the scheduler on a group of real workers and on a fake one, a fleet of groups, and
 * the fake that the routes are tested on.
 */

import assert from "node:assert/strict";
import type { Generation, GenerationEvent, Generator } from "../../router/scheduling/generation.ts";
import { Fleet } from "../../router/fleet/fleet.ts";
import { Scheduler } from "../../router/scheduling/scheduler.ts";
import { EngineWorkers } from "../support/engine_workers.ts";
import { FakeGenerator } from "../support/fake_generator.ts";
import { FakeGroup } from "../support/fake_group.ts";
import { collect, generationRequest, GREEDY, promptOf } from "../support/generation_request.ts";
import { until } from "../support/until.ts";

/** Of all generators here: their longest context. */
const CONTEXT = 1024;
/** The tiny model's vocabulary has 512 tokens. */
const PROMPT = promptOf(70).map((token) => token % 500);
const MAX_TOKENS = 6;

interface Opened {
  readonly generator: Generator;
  close(): Promise<void>;
}

/** Registers the suite. */
function generatorContract(name: string, open: () => Promise<Opened>): void {
  Deno.test(`Generator contract: ${name}`, async (t) => {
    const { generator, close } = await open();
    const ask = (changes: Parameters<typeof generationRequest>[0] = {}) =>
      generator.generate(generationRequest({ promptTokens: PROMPT, maxTokens: MAX_TOKENS, ...changes }));
    try {
      await t.step("reports progress, tokens and the end, in this order", () => reportsInOrder(ask()));
      await t.step("stops at a stop token, and reports it", () => stops(ask));
      await t.step("reports as many log-probabilities as were asked for", () => reportsLogprobs(ask));
      await t.step("ends without a finish when it is cancelled", () => isCancelled(ask({ maxTokens: 500 })));
      await t.step("is cancelled by a reader that leaves", () => isLeft(ask({ maxTokens: 500 })));
      await t.step("can be read once", () => isReadOnce(ask()));
      await t.step("answers several at once", () => answersAll([ask(), ask(), ask()]));
      await t.step("refuses what cannot be generated", () => refuses(ask));
    } finally {
      await close();
    }
  });
}

type Ask = (changes?: Parameters<typeof generationRequest>[0]) => Generation;

async function reportsInOrder(generation: Generation): Promise<void> {
  const { events, tokens, reason } = await collect(generation);
  const kinds = events.map(({ kind }) => kind);
  assert.deepEqual(kinds, kinds.toSorted((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b)));
  assert.deepEqual([tokens.length, reason], [MAX_TOKENS, "length"]);
  let before = 0;
  for (const event of events) {
    if (event.kind !== "prefill") continue;
    assert.equal(event.total, PROMPT.length);
    assert.ok(event.cached <= event.processed && event.processed >= before && event.processed <= event.total);
    before = event.processed;
  }
  const last = events.at(-1);
  assert.ok(last?.kind === "finished");
  assert.deepEqual(generation.usage(), last.usage);
  const { promptTokens, completionTokens, cachedTokens } = last.usage;
  assert.deepEqual([promptTokens, completionTokens], [PROMPT.length, MAX_TOKENS]);
  assert.ok(cachedTokens >= 0 && cachedTokens <= promptTokens);
}

const ORDER: readonly GenerationEvent["kind"][] = ["prefill", "token", "finished"];

async function stops(ask: Ask): Promise<void> {
  const { tokens } = await collect(ask());
  const stop = tokens[2] ?? assert.fail();
  const stopped = await collect(ask({ stopTokens: [stop] }));
  assert.equal(stopped.reason, "stop");
  assert.deepEqual(stopped.tokens, tokens.slice(0, tokens.indexOf(stop) + 1));
}

async function reportsLogprobs(ask: Ask): Promise<void> {
  for (const topLogprobs of [undefined, 0, 3]) {
    const { events } = await collect(ask({ sampling: { ...GREEDY, topLogprobs } }));
    for (const event of events) {
      if (event.kind !== "token") continue;
      assert.equal(event.logprobs?.top.length, topLogprobs);
      if (event.logprobs !== undefined) assert.ok(event.logprobs.logprob <= 0);
    }
  }
}

async function isCancelled(generation: Generation): Promise<void> {
  const { tokens, reason, code } = await collect(generation, (count) => {
    if (count === 3) generation.cancel();
  });
  assert.deepEqual([tokens.length, reason, code], [3, undefined, undefined]);
  generation.cancel();
  assert.ok(generation.usage().completionTokens >= 3);
}

async function isLeft(generation: Generation): Promise<void> {
  for await (const event of generation) if (event.kind === "token") break;
  const after = generation.usage().completionTokens;
  assert.deepEqual((await collect(generation)).events, []);
  assert.equal(generation.usage().completionTokens, after);
}

async function isReadOnce(generation: Generation): Promise<void> {
  assert.equal((await collect(generation)).reason, "length");
  assert.deepEqual((await collect(generation)).events, []);
}

async function answersAll(generations: readonly Generation[]): Promise<void> {
  const outcomes = await Promise.all(generations.map((generation) => collect(generation)));
  for (const { tokens, reason } of outcomes) assert.deepEqual([tokens.length, reason], [MAX_TOKENS, "length"]);
  assert.deepEqual(outcomes.map(({ tokens }) => tokens), outcomes.map(() => outcomes[0]?.tokens));
}

function refuses(ask: Ask): void {
  assert.throws(() => ask({ promptTokens: new Uint32Array(0) }), { code: "invalid_request" });
  assert.throws(() => ask({ maxTokens: 0 }), { code: "invalid_request" });
  const maxTokens = CONTEXT - PROMPT.length + 1;
  const numbers = new RegExp(`${PROMPT.length} .*${maxTokens} .*${CONTEXT}`);
  assert.throws(() => ask({ maxTokens }), { code: "context_length_exceeded", message: numbers });
}

generatorContract("Scheduler on real workers", async () => {
  const workers = new EngineWorkers([CONTEXT]);
  const { group } = workers;
  const scheduler = new Scheduler(group);
  await until(() => group.state.kind === "ready", 60_000);
  const close = async () => {
    await scheduler.close();
    await group.close();
    await workers.close();
  };
  return { generator: scheduler, close };
});

generatorContract("Scheduler on a fake group", () => {
  const group = new FakeGroup({ model: { kvPages: CONTEXT / 64 } });
  const scheduler = new Scheduler(group);
  const close = async () => {
    await scheduler.close();
    await group.close();
  };
  return Promise.resolve({ generator: scheduler, close });
});

generatorContract("Fleet over fake groups", () => {
  const groups = [0, 1].map(() => new FakeGroup({ model: { kvPages: CONTEXT / 64 } }));
  const fleet = new Fleet(groups);
  const close = async () => {
    await fleet.close();
    await Promise.all(groups.map((group) => group.close()));
  };
  return Promise.resolve({ generator: fleet, close });
});

generatorContract("FakeGenerator", () => {
  const generator = new FakeGenerator({ tokens: [5, 6, 7, 8], prefill: [32, 70], everyMs: 1 }, CONTEXT);
  return Promise.resolve({ generator, close: () => Promise.resolve() });
});
