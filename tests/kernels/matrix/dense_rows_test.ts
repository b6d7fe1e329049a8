/**
 * Dense decode of a model on matrix units: the bits of a row do not depend on how many rows come along. There is no prefill
 * and no sparse row here: the software driver would take minutes to compile their kernels.
 */

import assert from "node:assert/strict";
import { Engine } from "../../../engine/engine.ts";
import { type Session, SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { rowProductCut } from "../../../kernels/products/row_tile.ts";
import { everyLogprob, logprobsOf, mapsSettled, runTogether } from "../../support/engine_fixture.ts";
import { FIXTURES } from "../../support/model_directory.ts";
import { testProvider } from "../../support/test_provider.ts";

const PROMPT = Array.from({ length: 40 }, (_, i) => 8 + (i * 37) % 500);
const DECODED = Array.from({ length: 10 }, (_, i) => 9 + (i * 53) % 499);
const VOCABULARY = 512;

async function onMatrixUnits(body: (host: SessionHost, engine: Engine) => Promise<void>): Promise<void> {
  const model = { directory: `${FIXTURES}llama-rope3` };
  const engine = await Engine.open({ model, kvTokens: 2048, gpu: testProvider().name });
  try {
    assert.notEqual(rowProductCut(engine.commands.gpu.info), undefined, "this adapter has no matrix units");
    await body(new SessionHost(engine), engine);
  } finally {
    await engine.close();
    await mapsSettled();
  }
}

function denseRows(tokens: readonly number[], logits: "none" | "last") {
  return { kind: "decode", attention: "dense", tokens: Uint32Array.from(tokens), logits } as const;
}

async function prompted(host: SessionHost): Promise<Session> {
  const session = host.open({ sampling: everyLogprob(VOCABULARY), promptTokens: PROMPT.length });
  await session.run(denseRows(PROMPT, "none"));
  return session;
}

Deno.test("A correction on matrix units has the logits of dense decoding, bit for bit", async () => {
  await onMatrixUnits(async (host) => {
    const [dense, corrected] = [await prompted(host), await prompted(host)];
    for (const token of DECODED.slice(0, -1)) await dense.decode(token, "dense", "none");
    const expected = logprobsOf(await dense.decode(DECODED.at(-1) ?? 0));
    // Rows that are wrong until they are computed again, as sparse ones are.
    const wrong = logprobsOf(await corrected.run(denseRows(DECODED.map((token) => token + 1), "last")));
    assert.equal(expected.length, VOCABULARY);
    assert.notDeepEqual(wrong, expected, "rows must be wrong, or the correction shows nothing");
    const from = corrected.length - DECODED.length;
    const given = await corrected.run({ ...denseRows(DECODED, "last"), from });
    assert.deepEqual(logprobsOf(given), expected);
  });
});

Deno.test("A dense row on matrix units passes through a layer without a kernel that only converts, gates or rotates", async () => {
  await onMatrixUnits(async (host, engine) => {
    const session = await prompted(host);
    await session.decode(77);
    const kernels: string[] = [];
    engine.commands.observe({
      unit: "pass",
      beginPass: () => ({}),
      record: ({ name }) => kernels.push(name.split(" ", 1)[0] ?? name),
    });
    await session.decode(78);
    engine.commands.observe(undefined);
    const attention = ["rms_norm", "row_product", "attention_tile", "merge_states", "row_product"];
    const layer = [...attention, "rms_norm", "row_product", "row_product"];
    const { layers } = engine.config;
    assert.deepEqual(
      kernels.slice(1, 1 + layer.length * layers),
      Array.from({ length: layers }, () => layer).flat(),
    );
  });
});

Deno.test("A dense row on matrix units has the same logits alone and beside a long span and a row of another sequence", async () => {
  await onMatrixUnits(async (host) => {
    const [alone, together] = [await prompted(host), await prompted(host)];
    const [span, row] = [await prompted(host), await prompted(host)];
    const expected = logprobsOf(await alone.decode(77));
    const { spans } = await runTogether(host, [
      span.plan(denseRows(DECODED, "last")),
      row.plan(denseRows([91], "last")),
      together.plan(denseRows([77], "last")),
    ]);
    assert.deepEqual(logprobsOf(spans[2]), expected);
    assert.notDeepEqual(logprobsOf(spans[1]), expected);
  });
});
