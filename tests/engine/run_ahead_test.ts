/** Steps that are recorded while the one before runs: the same tokens, and failures and overruns that leave no trace. */

import assert from "node:assert/strict";

import { GREEDY } from "../../engine/evaluation/hand_session.ts";
import type {
  SamplingSettings,
  SequenceOpening,
  Span,
  SpanResult,
  SparseSettings,
  Step,
  TokenLogprobs,
} from "../../engine/span.ts";
import { engineFixture } from "../support/engine_fixture.ts";
import { Random } from "../support/random.ts";

const fixture = engineFixture({ random: "tiny" }, 16384);

const VOCABULARY = 512;
const SPARSE: SparseSettings = { budget: 64, heads: "kv_head" };
const SEEDED: SamplingSettings = { ...GREEDY, temperature: 0.9, topP: 0.95, seed: 5 };

let index = 1;
let sequence = 1000;

function step(parts: Partial<Step>): Step {
  return { index: index++, open: [], release: [], spans: [], deadlineMs: 60_000, ...parts };
}

function opening(id: number, prompt: number, sampling = SEEDED): SequenceOpening {
  const prefix = { pageOffset: 0, prefixPages: new Uint32Array(), prefixTokens: new Uint32Array() };
  return { sequence: id, sampling, sparse: SPARSE, promptTokens: prompt, audited: false, ...prefix };
}

function prefill(id: number, prompt: Uint32Array, firstPage: number): Span {
  const newPages = Uint32Array.from({ length: 8 }, (_, i) => firstPage + i);
  return { kind: "prefill", sequence: id, from: 0, tokens: prompt, logits: "last", newPages };
}

function row(id: number, from: number, token: number | "sampled"): Span {
  return {
    kind: "decode",
    attention: from % 3 === 0 ? "dense" : "sparse",
    sequence: id,
    from,
    logits: "last",
    newPages: new Uint32Array(),
    ...(token === "sampled" ? { tokens: Uint32Array.of(0), sampled: true } : { tokens: Uint32Array.of(token) }),
  };
}

function prompts(count: number): Uint32Array[] {
  return Array.from({ length: count }, (_, i) => {
    const random = new Random(i);
    return random.integers(120 + 50 * i, VOCABULARY);
  });
}

/** A token, and what else the step said of it. */
interface Drawn {
  readonly token: number;
  readonly logprobs: TokenLogprobs | undefined;
}

function drawnOf({ token = NaN, logprobs }: SpanResult): Drawn {
  return { token, logprobs };
}

/** What several sequences draw, with that many steps in flight; the first of them samples as told, the others as `SEEDED`. */
async function answers(
  { sequences, tokens, depth, sampling = SEEDED }: {
    readonly sequences: number;
    readonly tokens: number;
    readonly depth: 1 | 2;
    readonly sampling?: SamplingSettings;
  },
): Promise<Drawn[][]> {
  const { engine } = fixture;
  const started = prompts(sequences).map((prompt, i) => ({ id: sequence++, prompt, page: 8 * i }));
  const first = await engine.run(step({
    open: started.map(({ id, prompt }, i) => opening(id, prompt.length, i === 0 ? sampling : SEEDED)),
    spans: started.map(({ id, prompt, page }) => prefill(id, prompt, page)),
  }));
  const drawn = first.spans.map((result) => [drawnOf(result)]);
  const pending: Promise<void>[] = [];
  for (let at = 0; at < tokens; at++) {
    const spans = started.map(({ id, prompt }, i) =>
      row(id, prompt.length + at, depth === 2 && at > 0 ? "sampled" : drawn[i]?.at(-1)?.token ?? NaN)
    );
    const running = engine.run(step({ spans, ...(depth === 2 && { followed: true }) })).then((result) => {
      result.spans.forEach((span, i) => drawn[i]?.push(drawnOf(span)));
    });
    pending.push(running);
    if (pending.length === depth) await pending.shift();
  }
  await Promise.all(pending);
  await engine.run(step({ release: started.map(({ id }) => id) }));
  return drawn;
}

Deno.test("Engine.run() draws the same tokens one step ahead as step by step", async () => {
  for (const sequences of [1, 3]) {
    const expected = await answers({ sequences, tokens: 40, depth: 1 });
    assert.ok(new Set(expected.flat().map(({ token }) => token)).size > 10);
    assert.deepEqual(await answers({ sequences, tokens: 40, depth: 2 }), expected);
  }
});

Deno.test("Engine.run() submits a step that runs ahead once: its layers, its draws and the copies of what is read", async () => {
  const { engine } = fixture;
  const { queue } = engine.commands.gpu.device;
  const [prompt] = prompts(1);
  assert.ok(prompt !== undefined);
  const id = sequence++;
  await engine.run(step({ open: [opening(id, prompt.length)], spans: [prefill(id, prompt, 0)] }));
  const pair = (from: number) => [
    engine.run(step({ spans: [row(id, from, 1)], followed: true })),
    engine.run(step({ spans: [row(id, from + 1, "sampled")] })),
  ];
  await Promise.all(pair(prompt.length));
  const submit = queue.submit;
  let submitted = 0;
  queue.submit = (commands) => {
    const buffers = [...commands];
    submitted += buffers.length;
    submit.call(queue, buffers);
  };
  try {
    await Promise.all(pair(prompt.length + 2));
  } finally {
    queue.submit = submit;
  }
  assert.equal(submitted, 3, "two of the first, whose layers do not wait for its draws, and one of the second");
  await engine.run(step({ release: [id] }));
});

const PENALTIES = { repetitionPenalty: 1.3, presencePenalty: 0.4, frequencyPenalty: 0.6 } as const;

const SETTINGS: Readonly<Record<string, Partial<SamplingSettings>>> = {
  "all penalties": PENALTIES,
  "penalties of greedy draws": { ...PENALTIES, temperature: 0 },
  "log-probabilities": { topLogprobs: 20 },
  "biases and a minimum length": { minTokens: 9, suppressed: [1, 2], logitBias: [[7, 3], [8, -100], [1, 100]] },
  "all of these": { ...PENALTIES, topLogprobs: 3, logitBias: [[7, 3]], minTokens: 9, suppressed: [7] },
};

for (const [name, changes] of Object.entries(SETTINGS)) {
  Deno.test(`Engine.run() draws the same one step ahead with ${name}, alone and beside others`, async () => {
    const asked = { tokens: 16, sampling: { ...SEEDED, ...changes } };
    const [alone] = await answers({ ...asked, sequences: 1, depth: 1 });
    const [plain] = await answers({ ...asked, sequences: 1, depth: 1, sampling: SEEDED });
    if (changes.topLogprobs === undefined) assert.notDeepEqual(alone, plain);
    for (const sequences of [1, 2]) {
      const [ahead] = await answers({ ...asked, sequences, depth: 2 });
      assert.deepEqual(ahead, alone);
    }
  });
}

Deno.test("Engine.run() discards a row that overran: the next span's `from` is all it takes", async () => {
  const { engine } = fixture;
  const [prompt = new Uint32Array()] = prompts(1);
  const go = async (overruns: boolean, sampling: SamplingSettings) => {
    const id = sequence++;
    const open = [opening(id, prompt.length, sampling)];
    const { spans } = await engine.run(step({ open, spans: [prefill(id, prompt, 0)] }));
    const at = prompt.length;
    const running = engine.run(step({ spans: [row(id, at, spans[0]?.token ?? NaN)], followed: true }));
    const overrun = overruns ? engine.run(step({ spans: [row(id, at + 1, "sampled")] })) : undefined;
    await Promise.all([running, overrun]);
    const after: (number | undefined)[] = [7];
    for (let i = 1; i < 8; i++) {
      const result = await engine.run(step({ spans: [row(id, at + i, after.at(-1) ?? NaN)] }));
      after.push(result.spans[0]?.token);
    }
    await engine.run(step({ release: [id] }));
    return after;
  };
  const OVERRUN = true;
  for (const sampling of [SEEDED, { ...SEEDED, temperature: 0, repetitionPenalty: 1e6 }]) {
    const after = await go(OVERRUN, sampling);
    assert.deepEqual(after, await go(!OVERRUN, sampling));
    // Whatever was drawn for the row that overran does not count.
    if (sampling.temperature === 0) assert.equal(new Set(after).size, after.length);
  }
});

Deno.test("Engine.run() verifies drafts one step ahead as it does once they are known, and goes on from there", async () => {
  const { engine } = fixture;
  const [prompt = new Uint32Array()] = prompts(1);
  const ROWS = 5;
  const go = async (ahead: boolean, sampling: SamplingSettings) => {
    const id = sequence++;
    const open = [{ ...opening(id, prompt.length, sampling), audited: true }];
    const { spans } = await engine.run(step({ open, spans: [prefill(id, prompt, 0)] }));
    const from = prompt.length;
    const told: number[] = [spans[0]?.token ?? NaN];
    const draft = (i: number): Span => ({ ...row(id, from + i, told[i] ?? NaN), kind: "decode", attention: "sparse" });
    for (let i = 0; i < ROWS - 2; i++) {
      told.push((await engine.run(step({ spans: [draft(i)] }))).spans[0]?.token ?? NaN);
    }
    const last = engine.run(step({ spans: [draft(ROWS - 2)] }));
    const verified = (token: number, sampled: Pick<Span, "sampled">): Span => ({
      ...{ kind: "decode", attention: "dense", sequence: id, from, logits: "audit", newPages: new Uint32Array() },
      ...{ tokens: Uint32Array.of(...told, token), ...sampled },
    });
    const audited = ahead
      ? engine.run(step({ spans: [verified(0, { sampled: true })] }))
      : last.then((result) => engine.run(step({ spans: [verified(result.spans[0]?.token ?? NaN, {})] })));
    const token = (await last).spans[0]?.token;
    const [audit, next] = ahead
      ? await Promise.all([audited, last.then(() => engine.run(step({ spans: [row(id, from + ROWS, "sampled")] })))])
      : [await audited, undefined];
    const drawn = audit.spans[0]?.audit?.tokens.at(-1) ?? NaN;
    const after = next ?? await engine.run(step({ spans: [row(id, from + ROWS, drawn)] }));
    const rows = await engine.readKvRows(id, 2);
    await engine.run(step({ release: [id] }));
    return { token, audit: audit.spans[0]?.audit, after: after.spans[0]?.token, rows };
  };
  const AHEAD = true;
  for (const changes of [{}, { topLogprobs: 3 }, { logitBias: [[7, 3]], minTokens: 9, suppressed: [1] }] as const) {
    const sampling = { ...SEEDED, ...changes };
    assert.deepEqual(await go(AHEAD, sampling), await go(!AHEAD, sampling));
  }
});

Deno.test("Engine.run() fails the step after one that could not be submitted: its rows may hold anything", async () => {
  const { engine } = fixture;
  const [prompt = new Uint32Array()] = prompts(1);
  const id = sequence++;
  await engine.run(step({ open: [opening(id, prompt.length)], spans: [prefill(id, prompt, 0)] }));
  const at = prompt.length;
  const masked: Span = { ...row(id, at, 1), masksFollow: true };
  const noMasks = Promise.reject(new Error("no masks come"));
  const two = [engine.run(step({ spans: [masked] }), noMasks), engine.run(step({ spans: [row(id, at + 1, 1)] }))];
  for (const each of two) await assert.rejects(each, /no masks come/);
  const { spans } = await engine.run(step({ spans: [row(id, at, 1)] }));
  assert.equal(typeof spans[0]?.token, "number");
  await engine.run(step({ release: [id] }));
});

Deno.test("Engine.run() refuses a step when the one before is over, not sooner", async () => {
  const { engine } = fixture;
  const [prompt = new Uint32Array()] = prompts(1);
  const id = sequence++;
  const ended: string[] = [];
  const first = engine.run(step({ open: [opening(id, prompt.length)], spans: [prefill(id, prompt, 0)] }));
  const refused = engine.run(step({ spans: [row(id, prompt.length + 9, 1)] }));
  await Promise.all([
    first.then(() => ended.push("first")),
    assert.rejects(refused, /is beyond/).then(() => ended.push("refused")),
  ]);
  assert.deepEqual(ended, ["first", "refused"]);
  await engine.run(step({ release: [id] }));
});

Deno.test("Engine.run() takes two steps at a time, and refuses drawn tokens that are not there", async () => {
  const { engine } = fixture;
  const [prompt = new Uint32Array()] = prompts(1);
  const id = sequence++;
  await engine.run(step({ open: [opening(id, prompt.length)], spans: [prefill(id, prompt, 0)] }));
  const at = prompt.length;
  const none = engine.run(step({ spans: [row(id, at + 1, 1)] }));
  await assert.rejects(none, /is beyond/);
  await assert.rejects(engine.run(step({ spans: [row(id, at, "sampled")] })), /which drew none/);
  const two = [
    engine.run(step({ spans: [row(id, at, 1)] })),
    engine.run(step({ spans: [row(id, at + 1, "sampled")] })),
  ];
  await assert.rejects(engine.run(step({ spans: [row(id, at + 2, "sampled")] })), /2 other steps are running/);
  assert.equal((await Promise.all(two)).length, 2);
  const refused = engine.run(step({ spans: [row(id, at + 9, 1)] }));
  const after = engine.run(step({ spans: [row(id, at + 1, "sampled")] }));
  await assert.rejects(refused, /its start .* is beyond/);
  await assert.rejects(after, /which drew none/, "its token was to come from a step that was refused");
  await engine.run(step({ release: [id] }));
});
