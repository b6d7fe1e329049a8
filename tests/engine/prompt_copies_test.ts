/**
 * Prompts whose keys and values are sent to the other workers: they get the same bits as prompts whose queries are sent, with equal
 * and unequal slices, and when other sequences take their pages.
 */

import assert from "node:assert/strict";
import { SessionHost } from "../../engine/evaluation/hand_session.ts";
import type { SparseSettings } from "../../engine/span.ts";
import { everyLogprob, logprobsOf, runTogether } from "../support/engine_fixture.ts";
import { enginePool } from "../support/engine_pool.ts";
import { gateCases } from "../support/gate_cases.ts";
import { MemoryGroup } from "../support/memory_group.ts";

const pool = enginePool({ random: "tiny" }, gateCases([1024, 512, 256], [2048, 1024, 512, 256]));

function prompt(length: number, salt = 0): Uint32Array {
  return Uint32Array.from({ length }, (_, i) => 8 + (i * 37 + (i >> 3) * 11 + salt) % 500);
}

/** What was exchanged, and the logits after each chunk. */
interface Answers {
  readonly logits: readonly Float64Array[];
  readonly keys: number;
  readonly queries: number;
  readonly states: number;
  readonly selections: number;
}

async function answers(
  slices: readonly number[],
  options: Parameters<typeof MemoryGroup.of>[2],
  read: (host: SessionHost) => Promise<Float64Array[]>,
): Promise<Answers> {
  const group = MemoryGroup.of(pool, slices, options);
  for (const engine of group.engines) engine.calibrate({ selectLayers: [1], budget: 64, sparseFrom: 0 });
  try {
    const logits = await read(new SessionHost(group, group.map));
    const { keys, queries, states, selections } = group.count;
    return { logits, keys, queries, states, selections };
  } finally {
    await group.close();
  }
}

/** Chunks of one prompt, a rollback, rows that decode onto another page, a correction of some of them, and one more. */
async function chunks(host: SessionHost): Promise<Float64Array[]> {
  const session = host.open({ sampling: everyLogprob(512), pageOffset: 1 });
  const logits = [];
  for (const [i, rows] of [390, 400].entries()) logits.push(logprobsOf(await session.prefill(prompt(rows, i))));
  const again = { kind: "prefill", from: 300, tokens: prompt(400, 7), logits: "last" } as const;
  logits.push(logprobsOf(await session.run(again)));
  for (let i = 0; i < 6; i++) logits.push(logprobsOf(await session.decode(9 + i)));
  const rows = { kind: "decode", attention: "dense", from: 701, tokens: prompt(5, 3), logits: "last" } as const;
  logits.push(logprobsOf(await session.run(rows)));
  logits.push(logprobsOf(await session.decode(20)));
  await session.close();
  return logits;
}

/** Rows that decode sparsely, a correction of them, and a sparse row beside a dense one of another sequence. */
async function sparseRows(host: SessionHost): Promise<Float64Array[]> {
  const settings: readonly SparseSettings[] = [
    { budget: 32, heads: "kv_head" },
    { budget: 24, heads: "query_head" },
    { budget: 120, heads: "all_heads", coverage: 0.9 },
  ];
  const logits = [];
  for (const sparse of settings) {
    const session = host.open({ sampling: everyLogprob(512), sparse, pageOffset: 1 });
    await session.prefill(prompt(380), "none");
    for (let i = 0; i < 6; i++) logits.push(logprobsOf(await session.decode(9 + i, "sparse")));
    const rows = { kind: "decode", attention: "dense", from: 380, tokens: prompt(6, 3), logits: "last" } as const;
    logits.push(logprobsOf(await session.run(rows)));
    const other = host.open({ sampling: everyLogprob(512) });
    await other.prefill(prompt(300), "none");
    const row = { kind: "decode", tokens: Uint32Array.of(5), logits: "last" } as const;
    const spans = [session.plan({ ...row, attention: "sparse" }), other.plan({ ...row, attention: "dense" })];
    logits.push(...(await runTogether(host, spans)).spans.map(logprobsOf));
    for (const each of [session, other]) await each.close();
  }
  return logits;
}

/** Two prompts in one step, each in chunks. */
async function together(host: SessionHost): Promise<Float64Array[]> {
  const sessions = [0, 1].map((pageOffset) => host.open({ sampling: everyLogprob(512), pageOffset }));
  const logits = [];
  for (const rows of [210, 250]) {
    const spans = sessions.map((session, i) =>
      session.plan({ kind: "prefill", tokens: prompt(rows, i + rows), logits: "last" })
    );
    const { spans: results } = await runTogether(host, spans);
    logits.push(...results.map(logprobsOf));
  }
  for (const session of sessions) await session.close();
  return logits;
}

/** A long prompt in one step, one that goes on from it, and two in one step: all become batches that are under way together. */
async function longPrompts(host: SessionHost): Promise<Float64Array[]> {
  const session = host.open({ sampling: everyLogprob(512), pageOffset: 1 });
  const logits = [];
  for (const [i, rows] of [gateCases(520, 2060), 70].entries()) {
    logits.push(logprobsOf(await session.prefill(prompt(rows, i))));
  }
  logits.push(logprobsOf(await session.decode(9)));
  await session.close();
  const sessions = [0, 1].map((pageOffset) => host.open({ sampling: everyLogprob(512), pageOffset }));
  const spans = sessions.map((each, i) => each.plan({ kind: "prefill", tokens: prompt(270 + i, i), logits: "last" }));
  logits.push(...(await runTogether(host, spans)).spans.map(logprobsOf));
  for (const each of sessions) await each.close();
  return logits;
}

/** Rows that decode in the step of a prompt that is dealt to all workers: the first such step, and one that finds its programs. */
async function besidePrompts(host: SessionHost): Promise<Float64Array[]> {
  const sparse = { budget: 32, heads: "kv_head" } as const;
  const decoding = [0, 1].map((pageOffset) => host.open({ sampling: everyLogprob(512), sparse, pageOffset }));
  for (const [i, session] of decoding.entries()) await session.prefill(prompt(300 + i, i), "none");
  const logits = [];
  for (const rows of [300, 310]) {
    const session = host.open({ sampling: everyLogprob(512), pageOffset: 1 });
    const spans = decoding.map((each, i) =>
      each.plan({ kind: "decode", tokens: Uint32Array.of(5), logits: "last", attention: i === 0 ? "dense" : "sparse" })
    );
    spans.push(session.plan({ kind: "prefill", tokens: prompt(rows, rows), logits: "last" }));
    logits.push(...(await runTogether(host, spans)).spans.map(logprobsOf));
    logits.push(logprobsOf(await session.decode(9)));
    await session.close();
  }
  for (const session of decoding) {
    logits.push(logprobsOf(await session.decode(7)));
    await session.close();
  }
  return logits;
}

const CASES = [
  { slices: gateCases([1024, 512], [2048, 1024]), read: longPrompts, sparseExchange: "states" },
  { slices: [1024, 512, 256], read: chunks, sparseExchange: "states" },
  { slices: [1024, 512], read: together, sparseExchange: "states" },
  { slices: [1024, 512], read: besidePrompts, sparseExchange: "states" },
  { slices: [1024, 512], read: sparseRows, sparseExchange: "states" },
  { slices: [1024, 512], read: sparseRows, sparseExchange: "rows" },
] as const;

Deno.test("Groups that copy prompts and rows have the bits of those that exchange queries and states, and send neither", async () => {
  for (const { slices, read, sparseExchange } of CASES) {
    const [copying, exchanging] = [
      await answers(slices, { sparseExchange }, read),
      await answers(slices, { sparseExchange, alike: false }, read),
    ];
    assert.deepEqual(copying.logits, exchanging.logits);
    assert.ok(copying.keys > 0 && exchanging.queries > 0 && exchanging.states > 0);
    assert.deepEqual([copying.queries, copying.states, exchanging.keys], [0, 0, 0]);
    // Where rows of whole sequences choose positions, the lead does it alone.
    if (read === sparseRows) assert.equal(copying.selections === 0, sparseExchange === "states");
  }
});

Deno.test("The batches of a prompt that is shared out are under way together, each a share of a layer behind the one before", async () => {
  const group = MemoryGroup.of(pool, [1024, 512]);
  try {
    const session = new SessionHost(group, group.map).open();
    await session.prefill(prompt(640), "none");
    const layers = Array.from({ length: group.info.layers }, (_, layer) => layer);
    // In each layer the lead sends its own when it is there, and takes the other's when they come.
    for (const batch of [0, 1]) {
      const own = group.count.keysAt.filter((point) => point.batch === batch);
      assert.deepEqual(own, layers.map((layer) => ({ batch, layer })));
    }
    const second = group.count.keysAt.findIndex(({ batch, layer }) => batch === 1 && layer === 1);
    const last = group.count.keysAt.findIndex(({ batch, layer }) => batch === 0 && layer === layers.length - 1);
    assert.ok(second < last, "the second chunk is under way before the first has ended");
  } finally {
    await group.close();
  }
});

Deno.test("A prompt whose copies gave way goes on with queries, and its bits do not change", async () => {
  const read = async (host: SessionHost) => {
    const [first, second] = [0, 1].map((pageOffset) => host.open({ sampling: everyLogprob(512), pageOffset }));
    assert.ok(first && second);
    const logits = [logprobsOf(await first.prefill(prompt(300)))];
    logits.push(logprobsOf(await second.prefill(prompt(310, 1))));
    logits.push(logprobsOf(await first.prefill(prompt(300, 2))));
    for (const session of [first, second]) await session.close();
    return logits;
  };
  // One of them has room: each worker lacks up to four pages of five.
  const slices = [1024, 512];
  const [some, none] = [
    await answers(slices, { replicaPages: 5 }, read),
    await answers(slices, { alike: false }, read),
  ];
  assert.deepEqual(some.logits, none.logits);
  assert.ok(some.keys > 0 && some.queries > 0, `${some.keys} times keys, ${some.queries} times queries`);
});

Deno.test("A sequence that starts on pages of another one finds their copies, also when that one is gone", async () => {
  const tail = prompt(70, 3);
  const read = (options: Parameters<typeof MemoryGroup.of>[2]) =>
    answers([1024, 512], options, async (host) => {
      const [first, other] = [host.open({ pageOffset: 1 }), host.open({ pageOffset: 1 })];
      await first.prefill(prompt(330), "none");
      await other.prefill(prompt(130, 5), "none");
      const second = host.share(first, 320, { sampling: everyLogprob(512) });
      const third = host.share(first, 256, { sampling: everyLogprob(512), sparse: { budget: 32, heads: "kv_head" } });
      await first.close();
      await other.close();
      const logits = [logprobsOf(await second.prefill(tail)), logprobsOf(await third.decode(7, "sparse"))];
      for (let i = 0; i < 3; i++) logits.push(logprobsOf(await third.decode(9 + i)));
      await second.close();
      // Its pages are given to others, which must not find what was copied of it.
      const fourth = host.open({ sampling: everyLogprob(512), pageOffset: 1 });
      logits.push(logprobsOf(await fourth.prefill(prompt(320, 9))));
      logits.push(logprobsOf(await third.decode(20)));
      for (const session of [third, fourth]) await session.close();
      return logits;
    });
  const [copying, exchanging] = [await read({}), await read({ alike: false })];
  assert.deepEqual(copying.logits, exchanging.logits);
  assert.deepEqual([copying.queries, copying.states], [0, 0]);
  const short = await read({ replicaPages: 4 });
  assert.deepEqual(short.logits, exchanging.logits);
  assert.ok(short.states > 0);
});

Deno.test("Rows of sequences that are copied follow the same programs from page to page, on the lead alone", async () => {
  const group = MemoryGroup.of(pool, [1024, 512]);
  try {
    const session = new SessionHost(group, group.map).open();
    await session.prefill(prompt(315), "none");
    const programs = () => group.engines.map(({ commands }) => commands.programs);
    // The lead draws by a program of its own.
    for (let i = 0; i < 8; i++) {
      await session.decode(9 + i);
      assert.deepEqual(programs(), [2, 0]);
    }
    await session.close();
    const sparse = new SessionHost(group, group.map, 100).open({ sparse: { budget: 32, heads: "kv_head" } });
    for (const engine of group.engines) engine.calibrate({ selectLayers: [1], budget: 64, sparseFrom: 0 });
    await sparse.prefill(prompt(315), "none");
    for (let i = 0; i < 8; i++) {
      await sparse.decode(9 + i, "sparse");
      assert.deepEqual(programs(), [2, 0]);
    }
  } finally {
    await group.close();
  }
});
