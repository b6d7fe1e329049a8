/** Sequences by hand: shared prefixes, rollback, pages that come back, and sessions that survive a refusal. */

import assert from "node:assert/strict";

import { SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { PAGE_TOKENS, type Step, type StepResult } from "../../../engine/span.ts";
import { engineFixture, everyLogprob, logprobsOf, withSession } from "../../support/engine_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = engineFixture({ random: "tiny" }, 1024);
const random = new Random(9);
const PROMPT = random.integers(150, 512);
const OPTIONS = { sampling: everyLogprob(512) };

/** The same engine behind a host that counts the sequences open on it. */
function counting() {
  const open = new Set<number>();
  const run = async (step: Step): Promise<StepResult> => {
    const result = await fixture.engine.run(step);
    for (const { sequence } of step.open) open.add(sequence);
    for (const sequence of step.release) open.delete(sequence);
    return result;
  };
  return { host: new SessionHost({ info: fixture.engine.info, run }), open };
}

Deno.test("SessionHost.share() gives the same logits as a prompt of its own", async () => {
  const own = await withSession(fixture.host, OPTIONS, async (session) => logprobsOf(await session.prefill(PROMPT)));
  await withSession(fixture.host, {}, async (first) => {
    await first.prefill(PROMPT, "none");
    const second = fixture.host.share(first, PROMPT.length, OPTIONS);
    assert.equal(second.length, 128);
    assert.deepEqual(second.pages, first.pages.slice(0, 2));
    try {
      assert.deepEqual(logprobsOf(await second.prefill(PROMPT.subarray(128))), own);
      // What either writes after the shared pages is its own.
      await first.prefill(PROMPT.subarray(0, 20), "none");
      await second.run({ kind: "decode", attention: "dense", tokens: Uint32Array.of(1), from: 149, logits: "none" });
      const span = { kind: "prefill", tokens: PROMPT.subarray(149), from: 149, logits: "last" } as const;
      assert.deepEqual(logprobsOf(await second.run(span)), own);
    } finally {
      await second.close();
    }
  });
});

Deno.test("SessionHost.share() shares only full pages of what is there", async () => {
  await withSession(fixture.host, {}, async (session) => {
    await session.prefill(PROMPT.subarray(0, 100), "none");
    for (const [tokens, length] of [[1000, 64], [100, 64], [63, 0], [0, 0]] as const) {
      const shared = fixture.host.share(session, tokens);
      assert.equal(shared.length, length);
      await shared.close();
    }
  });
});

Deno.test("SessionHost.openOn() keeps pages of several sequences beyond their ends", async () => {
  const { host, open } = counting();
  const all = fixture.engine.info.kvPages;
  const owners = [host.open(), host.open()];
  for (const owner of owners) await owner.prefill(PROMPT.subarray(0, 64), "none");
  const joined = host.openOn(owners.flatMap((owner) => owner.pages));
  const pages = [...joined.pages];
  for (const owner of owners) await owner.close();
  assert.equal(open.size, 0);
  assert.equal(joined.length, 128);
  const free = host.takePages(0, 0, all - 2);
  assert.ok(!free.some((page) => pages.includes(page)));
  host.returnPages(free);
  await joined.decode(1);
  assert.deepEqual(joined.pages.slice(0, 2), pages);
  await joined.close();
  assert.equal(host.takePages(0, 0, all).length, all);
});

Deno.test("Session.close() gives pages back when they are no longer shared", async () => {
  const { host, open } = counting();
  const all = fixture.engine.info.kvPages;
  assert.equal(all, 1024 / PAGE_TOKENS);
  const first = host.open();
  await first.prefill(PROMPT, "none");
  const second = host.share(first, 128);
  await second.prefill([1], "none");
  assert.equal(open.size, 2);
  await first.close();
  assert.throws(() => host.takePages(0, 0, all - 2), {
    code: "kv_exhausted",
    message: /14 pages: worker 0 has none free$/,
  });
  await second.close();
  assert.equal(open.size, 0);
  assert.equal(new Set(host.takePages(0, 0, all)).size, all);
});

Deno.test("Session.run() from an earlier position gives the bits of a sequence that never went further", async () => {
  const fresh = await withSession(fixture.host, OPTIONS, async (session) => {
    await session.prefill(PROMPT.subarray(0, 70), "none");
    return [logprobsOf(await session.decode(3)), logprobsOf(await session.prefill(PROMPT.subarray(0, 9)))];
  });
  await withSession(fixture.host, OPTIONS, async (session) => {
    await session.prefill(PROMPT, "none");
    for (let i = 0; i < 5; i++) await session.decode(i, "dense", "none");
    const row = { kind: "decode", attention: "dense", tokens: Uint32Array.of(3), from: 70, logits: "last" } as const;
    assert.deepEqual(logprobsOf(await session.run(row)), fresh[0]);
    assert.equal(session.length, 71);
    assert.deepEqual(logprobsOf(await session.prefill(PROMPT.subarray(0, 9))), fresh[1]);
  });
});

Deno.test("Session.run() leaves the session as it was when its span is refused", async () => {
  const { host, open } = counting();
  const session = host.open(OPTIONS);
  await assert.rejects(session.prefill([512]), { code: "invalid_step", message: /token 512/ });
  assert.deepEqual([session.length, session.pages.length, open.size], [0, 0, 0]);
  const logprobs = logprobsOf(await session.prefill(PROMPT.subarray(0, 60)));
  await assert.rejects(session.prefill(new Uint32Array(70).fill(600)), { code: "invalid_step" });
  await assert.rejects(session.prefill(new Uint32Array(2000)), { code: "kv_exhausted" });
  assert.deepEqual([session.length, session.pages.length, open.size], [60, 1, 1]);
  const again = { kind: "prefill", tokens: PROMPT.subarray(59, 60), from: 59, logits: "last" } as const;
  assert.deepEqual(logprobsOf(await session.run(again)), logprobs);
  await session.close();
  await session.close();
  assert.equal(open.size, 0);
  assert.equal(host.takePages(0, 0, 16).length, 16);
});

Deno.test("Session.generate() stops at a stop token, which is part of the answer, or at the bound", async () => {
  await withSession(fixture.host, {}, async (session) => {
    const { token = 0 } = await session.prefill(PROMPT);
    assert.deepEqual(await session.generate(token, { maxTokens: 9, stop: [token] }), [token]);
    const tokens = await session.generate(token, { maxTokens: 9 });
    assert.equal(tokens.length, 9);
    assert.equal(session.length, PROMPT.length + 8);
    const from = PROMPT.length;
    const { token: second = 0 } = await session.run({
      kind: "decode",
      attention: "dense",
      tokens: Uint32Array.of(token),
      from,
      logits: "last",
    });
    assert.equal(second, tokens[1]);
  });
});
