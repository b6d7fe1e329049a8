/** Correction spans: exact caches in every slice, and audits that say what dense decoding would have said. */

import assert from "node:assert/strict";
import { GREEDY, type Session, SessionHost } from "../../engine/evaluation/hand_session.ts";
import type { SamplingSettings, SpanAudit, SpanResult } from "../../engine/span.ts";
import { enginePool } from "../support/engine_pool.ts";
import { gateCases } from "../support/gate_cases.ts";
import { kvOf, relativeRms } from "../support/kv_difference.ts";
import { MemoryGroup } from "../support/memory_group.ts";
import { FIXTURES } from "../support/model_directory.ts";

const MODEL = { directory: `${FIXTURES}/llama-rope3` };
const CALIBRATION = { selectLayers: [1], budget: 64, sparseFrom: 0 };
const SPARSE = { budget: 24, heads: "kv_head" } as const;
const GROUPS = gateCases([[1024], [1024, 512, 256]], [[1024], [1024, 1024], [1024, 512, 256]]);
const pool = enginePool(MODEL, [1024, 1024, 512, 256]);
const PROMPT = Array.from({ length: 200 }, (_, i) => 8 + (i * 37 + (i >> 3) * 11) % 500);
/** More than a batch of 64 rows, for one worker: batches are cut before slices are. */
const LONG = 71;
/** More rows than fit two tiles of eight, for the others. */
const SHORT = 19;
const DECODED = Array.from({ length: LONG }, (_, i) => 9 + (i * 53) % 499);

/** A group of a shape. */
interface Trial extends Pick<MemoryGroup, "engines"> {
  /** Tokens to decode after the prompt. */
  readonly text: readonly number[];
}

/** Plays with a group of each shape; slices are uneven in one. */
async function eachGroup(play: (host: SessionHost, trial: Trial) => Promise<void>): Promise<void> {
  for (const slices of GROUPS) {
    const group = MemoryGroup.of(pool, slices);
    for (const engine of group.engines) engine.calibrate(CALIBRATION);
    try {
      const text = DECODED.slice(0, slices.length === 1 ? LONG : SHORT);
      await play(new SessionHost(group, group.map), { engines: group.engines, text });
    } finally {
      await group.close();
    }
  }
}

async function prompted(
  host: SessionHost,
  options: { sampling?: SamplingSettings; audited?: boolean } = {},
): Promise<Session> {
  const session = host.open({ ...options, sparse: SPARSE, promptTokens: PROMPT.length });
  await session.prefill(PROMPT, "none");
  return session;
}

function correct(session: Session, tokens: readonly number[], logits: "none" | "audit"): Promise<SpanResult> {
  const from = session.length - tokens.length;
  return session.run({ kind: "decode", attention: "dense", tokens: Uint32Array.from(tokens), from, logits });
}

Deno.test("A correction leaves the K and V of dense decoding, bit for bit, and of prefill within 1e-3 rms, in every slice", async () => {
  await eachGroup(async (host, { engines, text }) => {
    const [sparse, decoded, prefilled] = [await prompted(host), await prompted(host), await prompted(host)];
    for (const token of text) await sparse.decode(token, "sparse", "none");
    for (const token of text) await decoded.decode(token, "dense", "none");
    await prefilled.prefill(text, "none");
    const layers = engines[0]?.config.layers ?? 0;
    const difference = async (of: Session, layer: number) =>
      relativeRms(await kvOf(engines, of.sequence, layer), await kvOf(engines, sparse.sequence, layer));
    const before = await difference(decoded, layers - 1);
    assert.ok(before > 1e-3, `sparse rows are off by ${before} before they are corrected`);
    await correct(sparse, text, "none");
    for (let layer = 0; layer < layers; layer++) {
      assert.equal(await difference(decoded, layer), 0, `layer ${layer} of ${engines.length} workers`);
      const fromPrefill = await difference(prefilled, layer);
      assert.ok(fromPrefill < 1e-3, `layer ${layer} of ${engines.length} workers: ${fromPrefill}`);
    }
  });
});

Deno.test("A correction leaves the same bits however it is cut, and a sequence rebuilt row by row goes on with them", async () => {
  const sampling = { ...GREEDY, topLogprobs: 20 };
  await eachGroup(async (host, { text }) => {
    const [whole, cut, rebuilt] = [
      await prompted(host, { sampling }),
      await prompted(host, { sampling }),
      await prompted(host, { sampling }),
    ];
    for (const session of [whole, cut]) for (const token of text) await session.decode(token, "sparse", "none");
    await correct(whole, text, "none");
    const middle = Math.floor((text.length + 11) / 2);
    for (const [from, end] of [[0, 7], [7, 8], [8, middle], [middle, text.length]] as const) {
      const tokens = Uint32Array.from(text.slice(from, end));
      await cut.run({ kind: "decode", attention: "dense", tokens, from: PROMPT.length + from, logits: "none" });
    }
    // As the router rebuilds what was lost: dense spans up to the watermark, then the sparse rows, their tokens known.
    for (let from = 0; from < text.length; from += 16) {
      const tokens = Uint32Array.from(text.slice(from, from + 16));
      await rebuilt.run({ kind: "decode", attention: "dense", tokens, logits: "none" });
    }
    const [known, next] = [text.slice(0, 4), text.slice(4, 8)];
    for (const token of known) {
      await rebuilt.decode(token, "sparse", "none");
      const [expected, given] = [await whole.decode(token, "sparse"), await cut.decode(token, "sparse")];
      assert.deepEqual(given.logprobs, expected.logprobs);
    }
    for (const token of next) {
      const [expected, given] = [await whole.decode(token, "sparse"), await rebuilt.decode(token, "sparse")];
      assert.deepEqual(given.logprobs, expected.logprobs);
    }
  });
});

Deno.test("An audit draws what dense decoding draws, with noise, penalties and log-probabilities", async () => {
  const sampling: SamplingSettings = {
    ...GREEDY,
    temperature: 1,
    seed: 5,
    repetitionPenalty: 1.3,
    frequencyPenalty: 0.2,
    topLogprobs: 3,
  };
  await eachGroup(async (host, { text }) => {
    const dense = await prompted(host, { sampling });
    const expected: SpanResult[] = [];
    for (const token of text) expected.push(await dense.decode(token));
    const sparse = await prompted(host, { sampling, audited: true });
    const drafts: number[] = [];
    for (const token of text) drafts.push((await sparse.decode(token, "sparse")).token ?? -1);
    const { audit, token } = await correct(sparse, text, "audit");
    assert.equal(token, undefined);
    assert.deepEqual([...audit?.tokens ?? []], expected.map((result) => result.token));
    assert.deepEqual(audit?.logprobs, expected.map((result) => result.logprobs));
    assert.ok(drafts.some((draft, i) => draft !== audit?.tokens[i]), "the budget is too large to test anything");
    assertDivergences(audit, drafts);
  });
});

/** Every row was decoded sparsely: it diverges, but for those that a budget of 24 serves well. */
function assertDivergences(audit: SpanAudit | undefined, drafts: readonly number[]): void {
  const divergences = [...audit?.divergences ?? []];
  assert.equal(divergences.length, drafts.length);
  assert.ok(divergences.every((divergence) => divergence >= 0 && divergence < 50), `${divergences}`);
  const mean = (rows: readonly number[]) => rows.reduce((sum, row) => sum + row, 0) / rows.length;
  const agreed = divergences.filter((_, i) => drafts[i] === audit?.tokens[i]);
  const disagreed = divergences.filter((_, i) => drafts[i] !== audit?.tokens[i]);
  assert.ok(mean(disagreed) > mean(agreed), `${mean(disagreed)} where tokens differ, ${mean(agreed)} where they agree`);
}

Deno.test("An audit knows nothing of rows that no sparse step computed, or that are audited a second time", async () => {
  await eachGroup(async (host) => {
    const session = await prompted(host, { audited: true });
    const [first = 0, second = 0, third = 0] = DECODED;
    await session.decode(first, "sparse");
    await session.decode(second, "dense");
    await session.decode(third, "sparse");
    const known = async () => {
      const { audit } = await correct(session, [first, second, third], "audit");
      return [...audit?.divergences ?? []].map((divergence) => !Number.isNaN(divergence));
    };
    assert.deepEqual(await known(), [true, false, true]);
    assert.deepEqual(await known(), [false, false, false]);
    // Rolled back to the first row: what the third one left is unusable.
    await session.run({
      kind: "decode",
      attention: "sparse",
      tokens: Uint32Array.of(second),
      from: 201,
      logits: "last",
    });
    await session.run({
      kind: "decode",
      attention: "sparse",
      tokens: Uint32Array.of(first),
      from: 200,
      logits: "last",
    });
    await session.run({
      kind: "decode",
      attention: "dense",
      tokens: Uint32Array.of(second, third),
      from: 201,
      logits: "none",
    });
    assert.deepEqual(await known(), [true, false, false]);
  });
});

Deno.test("Engine.run() refuses audits of anything but dense decode rows", async () => {
  const group = MemoryGroup.of(pool, [1024]);
  try {
    const session = new SessionHost(group, group.map).open();
    const prefill = session.run({ kind: "prefill", tokens: Uint32Array.of(1, 2), logits: "audit" });
    await assert.rejects(prefill, { code: "invalid_step", message: /audit/ });
  } finally {
    await group.close();
  }
});
