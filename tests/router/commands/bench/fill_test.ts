/** Caches that are filled for measuring: copied pages lie where the page map wants them, and decoding runs on them. */

import assert from "node:assert/strict";
import { Engine } from "../../../../engine/engine.ts";
import { presetNamed } from "../../../../engine/model/presets.ts";
import { PageMap } from "../../../../engine/page_map.ts";
import { SessionHost } from "../../../../engine/evaluation/hand_session.ts";
import { PAGE_TOKENS, type Step } from "../../../../engine/span.ts";
import { measure } from "../../../../router/commands/bench/figures.ts";
import { copied, prefilled } from "../../../../router/commands/bench/fill.ts";
import { randomTokens } from "../../../../router/commands/bench/steps.ts";
import { everyLogprob, logprobsOf, mapsSettled } from "../../../support/engine_fixture.ts";
import { fakeModel } from "../../../support/fake_model.ts";
import { MemoryGroup } from "../../../support/memory_group.ts";

const MODEL = { random: "tiny" } as const;
const SPARSE = { budget: 64, heads: "kv_head" } as const;

/** Every number in a value of plain data. */
function numbersIn(value: unknown): number[] {
  if (typeof value === "number") return [value];
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(numbersIn) : [];
}

Deno.test("copied() puts pages on their owners, and all decoding runs on them, with slices of unlike sizes", async () => {
  const group = await MemoryGroup.open(MODEL, [1024, 512]);
  try {
    const host = new SessionHost(group, group.map);
    for (const pageOffset of [0, 1, 2]) {
      const options = { host, map: group.map, session: { sparse: SPARSE, pageOffset }, chunk: 512 };
      const fractions: number[] = [];
      const onProgress = (fraction: number) => fractions.push(fraction);
      const filling = await copied({ ...options, longest: 700, onProgress });
      assert.deepEqual(fractions, [3 / 10, 6 / 10, 9 / 10, 1]);

      const { session, prefill } = await filling.open(700);
      assert.deepEqual([session.length, session.pages.length, prefill], [700, 11, undefined]);
      assert.equal(new Set(session.pages).size, 11);
      for (const [place, page] of session.pages.entries()) {
        assert.ok(group.map.isOn(group.map.owner(pageOffset, place), page), `page ${page} at place ${place}`);
      }
      await session.close();
      if (pageOffset !== 1) {
        await filling.close();
        continue;
      }

      const work = { context: 650, budget: 64, tokens: 2, untimed: 1, readBackMs: 0 };
      const corrections = { corrections: [3], agreements: [0.9], cycles: 2 };
      const figures = await measure({ host, config: presetNamed("tiny").config }, filling, { ...work, ...corrections });
      assert.deepEqual(figures.decode.map(({ attention }) => attention), ["dense", "sparse"]);
      assert.deepEqual(figures.corrections?.refresh.map(({ stride }) => stride), [3]);
      assert.ok(numbersIn(figures).every(Number.isFinite), JSON.stringify(figures));

      await filling.close();
      // Every page is free again.
      host.returnPages(host.takePages(0, 0, group.map.pages));
    }
  } finally {
    await group.close();
    await mapsSettled();
  }
});

Deno.test("copied() gives the bits of the short prompts, and nothing that is decoded changes them", async () => {
  const engine = await Engine.open({ model: MODEL, kvTokens: 2048 });
  try {
    const host = new SessionHost(engine);
    const map = new PageMap([engine.info.kvPages]);
    const session = { sparse: SPARSE, sampling: everyLogprob(512), pageOffset: 0 };
    const filling = await copied({ host, map, session, chunk: 512, longest: 700, onProgress: () => {} });
    const tokens = randomTokens(700, 512);

    // Up to the end of the first short prompt, a copied context is that prompt.
    const { session: own } = await prefilled({ host, map, session, chunk: 512, onProgress: () => {} }).open(448);
    const { session: shared } = await filling.open(448);
    const expected = logprobsOf(await own.decode(7));
    assert.deepEqual(logprobsOf(await shared.decode(7)), expected);
    await shared.close();

    // Behind it the rows are those of a second prompt, at positions of its own.
    const second = host.open();
    await second.prefill(tokens.subarray(512, 640), "none");
    const { session: long } = await filling.open(640);
    await long.decode(7);
    const rowValues = 2 * 32;
    for (const layer of [0, 2]) {
      const [whole, part] = [
        await engine.readKvRows(long.sequence, layer),
        await engine.readKvRows(second.sequence, layer),
      ];
      for (const kind of ["k", "v"] as const) {
        assert.deepEqual(whole[kind].slice(512 * rowValues, 640 * rowValues), part[kind]);
      }
    }
    assert.equal(long.pages.length, 640 / PAGE_TOKENS + 1);
    await long.close();

    const { session: again } = await filling.open(448);
    assert.deepEqual(logprobsOf(await again.decode(7)), expected);
    for (const open of [again, own, second]) await open.close();
    await filling.close();
  } finally {
    await engine.close();
    await mapsSettled();
  }
});

Deno.test("copied() has the pages of a very long context come again on the workers that own them", async () => {
  // Engines that answer at once: only where pages lie is looked at.
  const map = new PageMap([12_000, 6000]);
  const info = fakeModel({ vocabSize: 512, kvPages: map.pages });
  let rows = 0;
  const run = (step: Step) => {
    rows += step.spans.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const spans = step.spans.map(({ sequence }) => ({ sequence, token: 1 }));
    return Promise.resolve({ index: step.index, spans, timing: { encodeMs: 0, waitMs: 0, totalMs: 0 } });
  };
  const host = new SessionHost({ info, run }, map);
  const session = { sparse: SPARSE, pageOffset: 1 };
  const filling = await copied({ host, map, session, chunk: 512, longest: 1_000_000, onProgress: () => {} });
  assert.ok(rows <= 131_072, `${rows} rows were read`);
  const { session: filled } = await filling.open(1_000_000);
  assert.deepEqual([filled.length, filled.pages.length], [1_000_000, 15_625]);
  for (const [place, page] of filled.pages.entries()) assert.ok(map.isOn(map.owner(1, place), page));
  await filled.close();
  await filling.close();
  host.returnPages(host.takePages(0, 0, map.pages));
});
