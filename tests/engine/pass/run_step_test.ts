/** What a row's bits may not depend on: its company, the cut of its prompt, the kind of step it came in. */

import assert from "node:assert/strict";

import type { Session } from "../../../engine/evaluation/hand_session.ts";
import type { SetShape, SparseSettings } from "../../../engine/span.ts";
import { engineFixture, everyLogprob, logprobsOf, runTogether, withSession } from "../../support/engine_fixture.ts";
import { Random } from "../../support/random.ts";

// The shape does not matter here, only that there is a layer of each role.
const fixture = engineFixture({ random: "tiny" }, 16384);

const VOCABULARY = 512;
const SAMPLING = everyLogprob(VOCABULARY);

function randomTokens(seed: number, count: number): Uint32Array<ArrayBuffer> {
  const random = new Random(seed);
  return random.integers(count, VOCABULARY);
}

/** Runs `body` with a session that holds a prompt. */
function prompted<T>(
  prompt: Uint32Array,
  sparse: SparseSettings | undefined,
  body: (session: Session) => Promise<T>,
): Promise<T> {
  return withSession(fixture.host, { sampling: SAMPLING, ...(sparse && { sparse }) }, async (session) => {
    await session.prefill(prompt, "none");
    return await body(session);
  });
}

const PROMPT = randomTokens(1, 300);
const TOKEN = Uint32Array.of(77);

/** Logits of the row after the prompt. */
function decoded(sparse?: SparseSettings): Promise<Float64Array> {
  const attention = sparse === undefined ? "dense" : "sparse";
  return prompted(PROMPT, sparse, async (session) => logprobsOf(await session.decode(77, attention)));
}

Deno.test("Engine.run() decodes sparsely to the bits of dense when the budget holds the context, else not", async () => {
  const dense = await decoded();
  assert.equal(dense.length, VOCABULARY);
  assert.ok(dense.every((logprob) => logprob < 0));
  assert.deepEqual(await decoded({ budget: 301, heads: "kv_head" }), dense);
  for (const heads of ["kv_head", "query_head", "all_heads"] as const) {
    assert.notDeepEqual(await decoded({ budget: 300, heads }), dense, heads);
  }
});

Deno.test("Engine.run() gathers everything to the bits of dense", async () => {
  // The session would not do it: a sparse span whose budget exceeds the context.
  const heads: SetShape[] = ["kv_head", "query_head", "all_heads"];
  const dense = await decoded();
  for (const shape of heads) {
    const gathered = await prompted(
      PROMPT,
      { budget: 500, heads: shape },
      (session) => session.run({ kind: "decode", attention: "sparse", tokens: TOKEN, logits: "last" }),
    );
    assert.deepEqual(logprobsOf(gathered), dense, shape);
  }
});

Deno.test("Engine.run() gives a decode row the same bits alone and in a batch of 16, dense and sparse", async () => {
  const shapes: readonly (SparseSettings | undefined)[] = [
    undefined,
    { budget: 64, heads: "kv_head" },
    { budget: 32, heads: "kv_head" },
    { budget: 48, heads: "query_head" },
    { budget: 40, heads: "all_heads" },
  ];
  const alone: Float64Array[] = [];
  for (const sparse of shapes) alone.push(await decoded(sparse));
  // Five rows after the prompt, among eleven of other lengths and kinds.
  const sessions = Array.from({ length: 16 }, (_, i) => {
    const sparse = shapes[i % shapes.length];
    return { sparse, session: fixture.host.open({ sampling: SAMPLING, ...(sparse && { sparse }) }) };
  });
  try {
    for (const [i, { session }] of sessions.entries()) {
      await session.prefill(i < shapes.length ? PROMPT : randomTokens(i, 65 + 61 * i), "none");
    }
    const { spans } = await runTogether(
      fixture.host,
      sessions.map(({ session, sparse }) =>
        session.plan({
          kind: "decode",
          attention: sparse === undefined ? "dense" : "sparse",
          tokens: TOKEN,
          logits: "last",
        })
      ),
    );
    alone.forEach((expected, i) => assert.deepEqual(logprobsOf(spans[i]), expected, JSON.stringify(shapes[i])));
  } finally {
    for (const { session } of sessions) await session.close();
  }
});

Deno.test("Engine.run() draws after a row beside more rows than a batch takes that nothing is drawn after", async () => {
  const rebuilt = { kind: "decode", attention: "dense", tokens: randomTokens(4, 70), logits: "none" } as const;
  const beside = await prompted(
    PROMPT,
    undefined,
    (session) =>
      prompted(randomTokens(5, 20), undefined, async (other) => {
        const row = session.plan({ kind: "decode", attention: "dense", tokens: TOKEN, logits: "last" });
        return logprobsOf((await runTogether(fixture.host, [row, other.plan(rebuilt)])).spans[0]);
      }),
  );
  assert.deepEqual(beside, await decoded());
});

Deno.test("Engine.run() gives the rows of a correction the bits of single dense rows", async () => {
  const tokens = randomTokens(2, 16);
  const single = await prompted(PROMPT, undefined, async (session) => {
    const rows: Float64Array[] = [];
    for (const token of tokens) rows.push(logprobsOf(await session.decode(token)));
    return rows;
  });
  await prompted(PROMPT, { budget: 32, heads: "kv_head" }, async (session) => {
    // Positions whose K and V come from sparse rows, and then all over again with full attention.
    for (const token of tokens.subarray(0, 15)) await session.decode(token, "sparse", "none");
    const from = PROMPT.length;
    const span = { kind: "decode", attention: "dense", tokens, from, logits: "all" } as const;
    const corrected = await session.run(span);
    assert.deepEqual(logprobsOf(corrected), single[15]);
    assert.equal(corrected.scores?.argmax.length, 15);
    corrected.scores?.argmax.forEach((token, i) => {
      const row = single[i] ?? new Float64Array(1);
      assert.equal(token, row.indexOf(Math.max(...row)));
      assert.ok(Math.abs((corrected.scores?.logprob[i] ?? NaN) - (row[tokens[i + 1] ?? 0] ?? NaN)) < 1e-5);
    });
    // K and V are exact again: the next row is that of a sequence that was dense all along.
    const next = logprobsOf(await session.decode(5));
    assert.deepEqual(
      next,
      await prompted(PROMPT, undefined, async (dense) => {
        for (const token of tokens) await dense.decode(token, "dense", "none");
        return logprobsOf(await dense.decode(5));
      }),
    );
  });
});

Deno.test("Engine.run() gives rows of corrections the bits of single dense rows beside others of their kind", async () => {
  // Two sequences are corrected across a border of splits, with 7 and 6 rows, and a third decodes.
  const prompts = [PROMPT.subarray(0, 252), PROMPT, PROMPT.subarray(0, 253)];
  const tokens = [randomTokens(6, 7), TOKEN, randomTokens(7, 6)];
  const single: Float64Array[] = [];
  for (const [i, prompt] of prompts.entries()) {
    single.push(
      await prompted(prompt, undefined, async (session) => {
        let last = new Float64Array();
        for (const token of tokens[i] ?? []) last = logprobsOf(await session.decode(token));
        return last;
      }),
    );
  }
  const sessions = prompts.map(() => fixture.host.open({ sampling: SAMPLING }));
  try {
    for (const [i, session] of sessions.entries()) await session.prefill(prompts[i] ?? [], "none");
    const { spans } = await runTogether(
      fixture.host,
      sessions.map((session, i) =>
        session.plan({ kind: "decode", attention: "dense", tokens: tokens[i] ?? TOKEN, logits: "last" })
      ),
    );
    assert.deepEqual(spans.map((span) => logprobsOf(span)), single);
  } finally {
    for (const session of sessions) await session.close();
  }
});

Deno.test("Engine.run() gives the same bits however a prompt is cut", async () => {
  const whole = await withSession(fixture.host, { sampling: SAMPLING }, async (session) => {
    return logprobsOf(await session.prefill(PROMPT));
  });
  for (const chunk of [7, 64, 200]) {
    const cut = await withSession(fixture.host, { sampling: SAMPLING }, async (session) => {
      let last: Float64Array | undefined;
      for (let at = 0; at < PROMPT.length; at += chunk) {
        last = logprobsOf(await session.prefill(PROMPT.subarray(at, at + chunk)));
      }
      return last;
    });
    assert.deepEqual(cut, whole, `chunks of ${chunk}`);
  }
  const single = await withSession(fixture.host, { sampling: SAMPLING }, async (session) => {
    await session.prefill(PROMPT.subarray(0, 280), "none");
    for (const token of PROMPT.subarray(280, -1)) await session.prefill([token], "none");
    return logprobsOf(await session.prefill(PROMPT.subarray(-1)));
  });
  assert.deepEqual(single, whole, "chunks of 1");
});

Deno.test("Engine.run() gives the same bits to prompts that share a batch, and to one longer than a batch", async () => {
  const long = randomTokens(3, 600);
  const alone = await withSession(fixture.host, { sampling: SAMPLING }, async (session) => {
    await session.prefill(long.subarray(0, 500), "none");
    return logprobsOf(await session.prefill(long.subarray(500)));
  });
  await withSession(fixture.host, { sampling: SAMPLING }, async (first) => {
    await withSession(fixture.host, { sampling: SAMPLING }, async (second) => {
      const { spans } = await runTogether(fixture.host, [
        first.plan({ kind: "prefill", tokens: PROMPT, logits: "last" }),
        second.plan({ kind: "prefill", tokens: long, logits: "last" }),
      ]);
      assert.deepEqual(logprobsOf(spans[1]), alone);
    });
  });
});

Deno.test("Engine.run() scores each row against the next token with the model's own probability", async () => {
  const tokens = randomTokens(4, 70);
  const single = await withSession(fixture.host, { sampling: SAMPLING }, async (session) => {
    const rows: Float64Array[] = [];
    for (let i = 0; i < tokens.length; i++) rows.push(logprobsOf(await session.prefill(tokens.subarray(i, i + 1))));
    return rows;
  });
  const { scores, token } = await withSession(
    fixture.host,
    { sampling: SAMPLING },
    (session) => session.run({ kind: "prefill", tokens, logits: "all", next: 9 }),
  );
  assert.equal(token, undefined);
  assert.equal(scores?.logprob.length, 70);
  for (const [i, row] of single.entries()) {
    const target = tokens[i + 1] ?? 9;
    assert.ok(Math.abs((scores?.logprob[i] ?? NaN) - (row[target] ?? NaN)) < 1e-5, `row ${i}`);
    assert.equal(scores?.argmax[i], row.indexOf(Math.max(...row)));
  }
});
