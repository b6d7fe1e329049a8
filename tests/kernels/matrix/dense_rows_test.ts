/**
 * Dense decode of a model on matrix units: the bits of a row do not depend on how many rows come along. Prompts are dense
 * rows too: the software driver would take minutes to compile the kernels of prefill.
 */

import assert from "node:assert/strict";
import { Engine } from "../../../engine/engine.ts";
import { type Session, SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { rowProductCut } from "../../../kernels/products/row_product.ts";
import { everyLogprob, logprobsOf, mapsSettled, runTogether } from "../../support/engine_fixture.ts";
import { FIXTURES } from "../../support/model_directory.ts";
import { testProvider } from "../../support/test_provider.ts";

const PROMPT = Array.from({ length: 40 }, (_, i) => 8 + (i * 37) % 500);
const DECODED = Array.from({ length: 19 }, (_, i) => 9 + (i * 53) % 499);
const SPARSE = { budget: 24, heads: "kv_head" } as const;
const VOCABULARY = 512;

async function onMatrixUnits(body: (host: SessionHost) => Promise<void>): Promise<void> {
  const engine = await Engine.open({
    model: { directory: `${FIXTURES}llama-rope3` },
    kvTokens: 2048,
    provider: testProvider(),
  });
  try {
    assert.notEqual(rowProductCut(engine.commands.gpu.info), undefined, "this adapter has no matrix units");
    engine.calibrate({ selectLayers: [1], budget: 24, sparseFrom: 0 });
    await body(new SessionHost(engine));
  } finally {
    await engine.close();
    await mapsSettled();
  }
}

async function prompted(host: SessionHost): Promise<Session> {
  const session = host.open({ sampling: everyLogprob(VOCABULARY), sparse: SPARSE, promptTokens: PROMPT.length });
  await session.run({ kind: "decode", attention: "dense", tokens: Uint32Array.from(PROMPT), logits: "none" });
  return session;
}

Deno.test("A correction on matrix units has the logits of dense decoding, bit for bit", async () => {
  await onMatrixUnits(async (host) => {
    const [dense, corrected] = [await prompted(host), await prompted(host)];
    for (const token of DECODED.slice(0, -1)) {
      await dense.decode(token, "dense", "none");
      await corrected.decode(token, "sparse", "none");
    }
    const last = DECODED.at(-1) ?? 0;
    const sparse = logprobsOf(await corrected.decode(last, "sparse"));
    const expected = logprobsOf(await dense.decode(last, "dense"));
    assert.equal(expected.length, VOCABULARY);
    assert.notDeepEqual(sparse, expected, "sparse rows must differ, or the correction shows nothing");
    const from = corrected.length - DECODED.length;
    const tokens = Uint32Array.from(DECODED);
    const given = await corrected.run({ kind: "decode", attention: "dense", tokens, from, logits: "last" });
    assert.deepEqual(logprobsOf(given), expected);
  });
});

Deno.test("A dense row on matrix units has the same logits beside sparse rows and other dense ones", async () => {
  await onMatrixUnits(async (host) => {
    const [alone, together, beside, sparse] = [
      await prompted(host),
      await prompted(host),
      await prompted(host),
      await prompted(host),
    ];
    const expected = logprobsOf(await alone.decode(77));
    const row = (token: number, attention: "dense" | "sparse") =>
      ({ kind: "decode", attention, tokens: Uint32Array.of(token), logits: "last" }) as const;
    const { spans } = await runTogether(host, [
      sparse.plan(row(91, "sparse")),
      beside.plan({ ...row(9, "dense"), tokens: Uint32Array.from(DECODED) }),
      together.plan(row(77, "dense")),
    ]);
    assert.deepEqual(logprobsOf(spans[2]), expected);
    assert.notDeepEqual(logprobsOf(spans[1]), expected);
    assert.deepEqual(spans.map(({ logprobs }) => logprobs?.top.length), Array(3).fill(VOCABULARY));
  });
});
