/** Requests over several groups: where each goes, and that it gets what it would get alone, whichever group is lost. */

import assert from "node:assert/strict";
import { RequestError } from "../../../router/errors.ts";
import type { FakeGroup } from "../../support/fake_group.ts";
import { runAlone } from "../../support/fake_tokens.ts";
import { collect, generationRequest, promptOf } from "../../support/generation_request.ts";
import { until } from "../../support/until.ts";
import { withFleet } from "../../support/with_fleet.ts";

/** Sequences that each group has opened so far. */
function opened(groups: readonly FakeGroup[]): readonly number[] {
  return groups.map(({ steps }) => steps.reduce((sum, { open }) => sum + open.length, 0));
}

const LONG = generationRequest({ promptTokens: promptOf(150), maxTokens: 60 });

Deno.test("Fleet spreads requests that have nothing in common over its groups", () =>
  withFleet({ groups: [{}, {}] }, async (fleet, groups) => {
    const requests = Array.from({ length: 6 }, (_, i) => generationRequest({ promptTokens: promptOf(100, i + 1) }));
    const outcomes = await Promise.all(requests.map((request) => collect(fleet.generate(request))));
    outcomes.forEach(({ tokens }, i) => assert.deepEqual(tokens, runAlone(requests[i] ?? LONG).tokens));
    assert.deepEqual(opened(groups), [3, 3]);
  }));

Deno.test("Fleet sends a request where its prefix is cached, and past a queue there once that is too long", () =>
  withFleet({ groups: [{}, {}], scheduler: { maxBatch: 8 } }, async (fleet, groups) => {
    const shared = promptOf(64 * 3 + 1);
    await collect(fleet.generate(generationRequest({ promptTokens: shared, maxTokens: 1 })));
    assert.deepEqual(opened(groups), [1, 0]);
    const ask = () => collect(fleet.generate(generationRequest({ promptTokens: shared, maxTokens: 40 })));
    // Three pages draw three sequences more than there are elsewhere.
    const outcomes = Array.from({ length: 8 }, ask);
    for (const { tokens } of await Promise.all(outcomes)) {
      assert.deepEqual(tokens, runAlone(generationRequest({ promptTokens: shared, maxTokens: 40 })).tokens);
    }
    const [there = 0, elsewhere = 0] = opened(groups);
    assert.ok(there > elsewhere && elsewhere >= 2, `${there} there, ${elsewhere} elsewhere`);
    assert.ok((fleet.groups[0]?.scheduler.stats().prefix.hitTokens ?? 0) >= 3 * 192);
  }));

Deno.test("Fleet keeps the choices of a request in one group", () =>
  withFleet({ groups: [{}, {}] }, async (fleet, groups) => {
    const choices = Array.from({ length: 4 }, (_, i) => ({ ...LONG, id: `choice ${i}`, requestId: "one", choices: 4 }));
    await Promise.all(choices.map((choice) => collect(fleet.generate(choice))));
    assert.deepEqual(opened(groups), [4, 0]);
  }));

Deno.test("Fleet splits the choices of a request when its group has no place left", () =>
  withFleet({ groups: [{}, {}], scheduler: { maxBatch: 2, maxQueued: 16 } }, async (fleet, groups) => {
    const choices = Array.from({ length: 4 }, (_, i) => ({ ...LONG, id: `choice ${i}`, requestId: "one", choices: 4 }));
    for (const outcome of await Promise.all(choices.map((choice) => collect(fleet.generate(choice))))) {
      assert.deepEqual(outcome.tokens, runAlone(LONG).tokens);
    }
    assert.deepEqual(opened(groups), [2, 2]);
  }));

Deno.test("Fleet moves what runs on a lost group to another that has room, and it goes on token for token", () =>
  withFleet({ groups: [{}, {}] }, async (fleet, groups) => {
    const seen: string[] = [];
    const { tokens, reason } = await collect(fleet.generate(LONG), (count) => {
      if (count === 20) groups[0]?.break();
      if (count !== 10) return;
      const feed = fleet.watch(LONG.id);
      (async () => {
        for await (const { kind } of feed ?? []) seen.push(kind);
      })();
    });
    assert.deepEqual({ tokens, reason }, runAlone(LONG));
    assert.deepEqual(opened(groups), [1, 1]);
    assert.equal(groups[0]?.state.kind, "loading", "it was not waited for");
    assert.equal(seen.filter((kind) => kind === "layout").length, 2, "its watcher is told where it lies now");
    assert.throws(() => fleet.read(LONG.id), { code: "selection_unavailable" }, "it is found where it ended");
    groups[0]?.recover();
  }));

Deno.test("Fleet lets a lost group's requests wait for it while no other has room, or none is like it", async (t) => {
  await t.step("no room", () =>
    withFleet({ groups: [{}, {}], scheduler: { maxBatch: 1 } }, async (fleet, groups) => {
      const others = { ...LONG, id: "other", requestId: "other", maxTokens: 2000 };
      const first = collect(fleet.generate(LONG), (count) => {
        if (count !== 20) return;
        groups[0]?.break();
        // There is no room in the other, for as long as it takes.
        groups[1]?.hold();
      });
      const second = fleet.generate(others);
      const rest = collect(second);
      await until(() => groups[0]?.state.kind === "loading");
      await new Promise((resolve) => setTimeout(resolve, 120));
      assert.deepEqual(opened(groups), [1, 1]);
      groups[0]?.recover();
      assert.deepEqual((await first).tokens, runAlone(LONG).tokens);
      assert.deepEqual(opened(groups), [2, 1]);
      second.cancel();
      groups[1]?.resume();
      await rest;
    }));
  await t.step(
    "another shape",
    () =>
      withFleet({ groups: [{}, { model: { slices: [32, 32] } }] }, async (fleet, groups) => {
        const { tokens } = await collect(fleet.generate(LONG), (count) => {
          if (count !== 20) return;
          groups[0]?.break();
          setTimeout(() => groups[0]?.recover(), 120);
        });
        assert.deepEqual(tokens, runAlone(LONG).tokens);
        assert.deepEqual(opened(groups), [2, 0]);
      }),
  );
});

Deno.test("Fleet goes on with the others when a group fails for good, and ends requests only when all have", async (t) => {
  const broken = { kind: "broken", reason: "no GPU is left" } as const;
  await t.step(
    "one of two",
    () =>
      withFleet({ groups: [{}, {}], scheduler: { maxBatch: 1 } }, async (fleet, groups) => {
        const [first, second] = [LONG, { ...LONG, id: "other", requestId: "other" }].map((request) =>
          collect(fleet.generate(request), (count) => {
            if (count === 20 && request === LONG) groups[0]?.break(broken);
          })
        );
        // There is no room in the other: it waits there.
        for (const outcome of [await first, await second]) assert.deepEqual(outcome?.tokens, runAlone(LONG).tokens);
        assert.deepEqual(opened(groups), [1, 2]);
        assert.deepEqual(
          (await collect(fleet.generate({ ...LONG, requestId: "later" }))).tokens,
          runAlone(LONG).tokens,
        );
      }),
  );
  await t.step("both", () =>
    withFleet({ groups: [{}, {}] }, async (fleet, groups) => {
      const outcome = await collect(fleet.generate(LONG), (count) => {
        if (count === 20) groups.forEach((group) => group.break(broken));
      });
      assert.equal(outcome.code, "group_unavailable");
      assert.throws(() => fleet.generate(LONG), { code: "group_unavailable" });
    }));
});

Deno.test("Fleet waits for the first of its groups to come back when all are lost", () =>
  withFleet({ groups: [{}, {}] }, async (fleet, groups) => {
    const late = generationRequest({ promptTokens: promptOf(80, 3) });
    const { model } = fleet;
    let other: ReturnType<typeof collect> | undefined;
    const { tokens } = await collect(fleet.generate(LONG), (count) => {
      if (count !== 20) return;
      for (const group of groups) group.break({ kind: "loading", progress: 0, ...(model && { model }) });
      other = collect(fleet.generate(late));
      setTimeout(() => groups[1]?.recover(), 60);
    });
    assert.deepEqual(tokens, runAlone(LONG).tokens);
    assert.deepEqual((await other)?.tokens, runAlone(late).tokens);
    assert.equal(groups[0]?.state.kind, "loading");
    groups[0]?.recover();
  }));

Deno.test("Fleet ends a request that two groups were lost under at the same token", () =>
  withFleet({ groups: [{}, {}] }, async (fleet, groups) => {
    for (const group of groups) {
      const run = group.run.bind(group);
      group.run = (step, traceparents) => {
        if (step.spans.some(({ logits }) => logits !== "none")) group.loseStep();
        return run(step, traceparents);
      };
    }
    const { code } = await collect(fleet.generate(LONG));
    assert.equal(code, "worker_lost", "it may be what breaks them");
    await until(() => groups.every(({ state }) => state.kind === "loading"));
    for (const group of groups) group.recover();
  }));

Deno.test("Fleet asks the next group when one is full, loads or holds too little, and reports the first refusal", async (t) => {
  await t.step(
    "full",
    () =>
      withFleet({ groups: [{}, {}], scheduler: { maxBatch: 1, maxQueued: 1 } }, async (fleet, groups) => {
        for (const group of groups) group.hold();
        const requests = Array.from({ length: 4 }, () => generationRequest({ promptTokens: promptOf(70, 5) }));
        const running = requests.map((request) => collect(fleet.generate(request)));
        assert.throws(() => fleet.generate(generationRequest()), { code: "queue_full" });
        for (const group of groups) group.resume();
        for (const outcome of await Promise.all(running)) assert.equal(outcome.reason, "length");
      }),
  );
  await t.step("loading", () =>
    withFleet({ groups: [{ loading: true }, { loading: true }] }, async (fleet, groups) => {
      assert.deepEqual([fleet.model], [undefined]);
      assert.throws(() => fleet.generate(LONG), RequestError);
      groups[1]?.recover();
      assert.notEqual(fleet.model, undefined);
      assert.deepEqual((await collect(fleet.generate(LONG))).tokens, runAlone(LONG).tokens);
      groups[0]?.recover();
    }));
  await t.step(
    "too small",
    () =>
      withFleet({ groups: [{ model: { slices: [4] } }, { model: { slices: [8] } }] }, async (fleet, groups) => {
        const request = generationRequest({ promptTokens: promptOf(300), maxTokens: 100 });
        assert.equal(fleet.model?.kvPages, 8, "the longest context counts");
        assert.equal((await collect(fleet.generate(request))).tokens.length, 100);
        assert.deepEqual(opened(groups), [0, 1]);
        const open = generationRequest({ promptTokens: promptOf(200, 2), maxTokens: 312, isMaxTokensOpen: true });
        const first = fleet.generate(open);
        const second = fleet.generate({ ...open, requestId: "second", promptTokens: promptOf(200, 4) });
        const lengths = await Promise.all([first, second].map(async (each) => (await collect(each)).tokens.length));
        assert.deepEqual(lengths.toSorted((a, b) => a - b), [56, 312], "each as long as its group holds");
      }),
  );
});

Deno.test("Fleet sends nothing to a group that has loaded another model", () =>
  withFleet({ groups: [{}, { model: { digest: "0".repeat(64), maxPositions: 200_000 } }] }, async (fleet, groups) => {
    const requests = Array.from({ length: 4 }, (_, i) => generationRequest({ promptTokens: promptOf(100, i + 1) }));
    await Promise.all(requests.map((request) => collect(fleet.generate(request))));
    assert.deepEqual(opened(groups), [4, 0]);
    assert.equal(fleet.model?.digest, "f".repeat(64));
  }));

Deno.test("Fleet takes what waits behind a full group to one that has become free", () =>
  withFleet({ groups: [{}, {}], scheduler: { maxBatch: 1 } }, async (fleet, groups) => {
    groups[0]?.hold();
    const [, , third] = [1, 2, 3].map((salt) => fleet.generate(generationRequest({ promptTokens: promptOf(90, salt) })))
      .map((generation) => collect(generation));
    assert.equal((await third)?.reason, "length", "the second group was free first, whichever it waited for");
    assert.deepEqual(opened(groups).slice(1), [2]);
    groups[0]?.resume();
    await until(() => fleet.groups.every(({ scheduler }) => !scheduler.isBusy));
  }));

Deno.test("Fleet.drain() waits for all groups, also for what moves between them", () =>
  withFleet({ groups: [{}, {}] }, async (fleet, groups) => {
    let drained: Promise<void> | undefined;
    const { tokens } = await collect(fleet.generate(LONG), (count) => {
      if (count !== 20) return;
      drained = fleet.drain(5000);
      groups[0]?.break();
    });
    assert.deepEqual(tokens, runAlone(LONG).tokens);
    await drained;
    assert.throws(() => fleet.generate(LONG), { code: "draining" });
    groups[0]?.recover();
  }));
