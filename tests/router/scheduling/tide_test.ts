/** Those who watch a sequence learn what it reads; those who do not watch cost nothing, and no watcher is waited for. */

import assert from "node:assert/strict";

import type { SequenceId, Step } from "../../../engine/span.ts";
import { Scheduler } from "../../../router/scheduling/scheduler.ts";
import { SelectionView } from "../../../router/scheduling/selection_view.ts";
import type { TideEvent, TideLayout, TideRow } from "../../../router/scheduling/tide_event.ts";
import { TideFeed } from "../../../router/scheduling/tide_feed.ts";
import { FakeGroup } from "../../support/fake_group.ts";
import { fakeModel } from "../../support/fake_model.ts";
import { collect, generationRequest, promptOf } from "../../support/generation_request.ts";
import { TestService } from "../../support/test_service.ts";

const CHOSEN = Uint32Array.of(0, 5, 99);

/** A fake group that reports one choice for every sparse row, at the newest position. */
class WatchedGroup extends FakeGroup {
  readonly #newest = new Map<SequenceId, number>();
  readonly selections = {
    of: (sequence: SequenceId) => [{ layer: 2, position: this.#newest.get(sequence) ?? NaN, sets: [CHOSEN] }],
  };

  override run(step: Step, traceparents: readonly string[]): ReturnType<FakeGroup["run"]> {
    for (const { sequence, from } of step.spans) this.#newest.set(sequence, from);
    return super.run(step, traceparents);
  }

  /** Indices of the steps that asked for a selection. */
  get asked(): readonly number[] {
    return this.steps.flatMap(({ spans }, i) => spans.some(({ reportsSelection }) => reportsSelection) ? [i] : []);
  }
}

const SPARSE = {
  mode: "sparse",
  budget: 16,
  heads: "kv_head",
  correction: { mode: "off", every: "auto", perToken: false },
} as const;

async function withWatchedGroup(
  slices: readonly number[],
  test: (scheduler: Scheduler, group: WatchedGroup) => Promise<void>,
): Promise<void> {
  const group = new WatchedGroup({ model: { slices } });
  const scheduler = new Scheduler(group);
  try {
    await test(scheduler, group);
  } finally {
    await Promise.all([scheduler.close(), group.close()]);
  }
}

async function all(feed: AsyncIterable<TideEvent>): Promise<TideEvent[]> {
  const events: TideEvent[] = [];
  for await (const event of feed) events.push(event);
  return events;
}

const isRow = (event: TideEvent): event is TideRow => event.kind === "row";

Deno.test("Tides describe a sequence once, then give its rows, sampled in time, and the end", async () => {
  await withWatchedGroup([16, 16], async (scheduler, group) => {
    const generation = scheduler.generate(
      generationRequest({ id: "a", promptTokens: promptOf(100), maxTokens: 60, attention: SPARSE }),
    );
    const events = all(scheduler.selections.watch("a") ?? assert.fail("it runs"));
    await collect(generation);
    const [layout, ...others] = await events;
    assert.ok(layout?.kind === "layout");
    assert.deepEqual([layout.promptTokens, layout.owners.toSorted(), layout.sinks, layout.recent], [100, [0, 1], 4, 4]);
    const rows = others.filter(isRow);
    assert.equal(rows.length, others.length, "described once");
    const shown = rows.reduce((sum, { skipped }) => sum + 1 + skipped, 0);
    assert.ok(
      shown <= 59 && rows.length < 59,
      `${rows.length} rows shown of ${shown}: rows come faster than is looked`,
    );
    assert.equal(rows[0]?.position, 100);
    assert.deepEqual(rows[0]?.layers, [{ layer: 2, position: 100, sets: [CHOSEN] }]);
    assert.equal(group.asked.length, 59, "selections of a group can be looked at whether it is watched or not");
  });
});

Deno.test("Tides have a worker alone report nothing but the rows that are shown", async () => {
  await withWatchedGroup([32], async (scheduler, group) => {
    const generation = scheduler.generate(
      generationRequest({ id: "a", promptTokens: promptOf(100), maxTokens: 60, attention: SPARSE }),
    );
    const events = all(scheduler.selections.watch("a") ?? assert.fail("it runs"));
    await collect(generation);
    assert.equal(group.asked.length, (await events).filter(isRow).length);
  });
});

Deno.test("Tides ask for nothing when no one watches, or when the watcher has left", async () => {
  await withWatchedGroup([32], async (scheduler, group) => {
    const request = { promptTokens: promptOf(100), maxTokens: 20, attention: SPARSE };
    await collect(scheduler.generate(generationRequest({ ...request, id: "a" })));
    assert.deepEqual(group.asked, []);
    const generation = scheduler.generate(generationRequest({ ...request, id: "b" }));
    await scheduler.selections.watch("b")?.return();
    await collect(generation);
    assert.deepEqual(group.asked, []);
    assert.deepEqual(await all(scheduler.selections.watch("b") ?? assert.fail("it ended recently")), []);
    assert.equal(scheduler.selections.watch("c"), undefined, "there is none");
  });
});

Deno.test("Tides describe a sequence again after it was rebuilt, and show dense rows as such", async () => {
  await withWatchedGroup([32, 32], async (scheduler, group) => {
    const generation = scheduler.generate(generationRequest({ id: "a", promptTokens: promptOf(70), maxTokens: 30 }));
    const events = all(scheduler.selections.watch("a") ?? assert.fail("it runs"));
    await collect(generation, (count) => {
      if (count !== 10) return;
      group.break();
      group.recover();
    });
    const kinds = (await events).map((event) => event.kind === "row" ? event.attention : event.kind);
    assert.equal(kinds.filter((kind) => kind === "layout").length, 2);
    assert.ok(kinds.includes("dense") && !kinds.includes("sparse"));
    assert.deepEqual(group.asked, [], "a dense row chooses nothing");
  });
});

Deno.test("Tides refuse the fifth watcher of a sequence, and take another when one has left", () => {
  const view = new SelectionView({ state: { kind: "ready", epoch: 1, model: fakeModel({ slices: [4] }) } });
  view.name("a", 1);
  const feeds = Array.from({ length: 4 }, () => view.watch("a"));
  assert.throws(() => view.watch("a"), { code: "rate_limit_exceeded", message: /at most 4 and 32/ });
  void feeds[0]?.return();
  assert.ok(view.watch("a") !== undefined);
});

const LAYOUT: TideLayout = {
  kind: "layout",
  promptTokens: 1,
  pageTokens: 64,
  owners: [0],
  layers: 1,
  selectLayers: [],
  sparse: { budget: 16, heads: "kv_head" },
  sinks: 4,
  recent: 4,
};

function row(position: number) {
  return { kind: "row", position, rows: 1, attention: "dense", layers: [] } as const;
}

Deno.test("TideFeed drops the oldest rows of a slow watcher and counts them; descriptions stay", async () => {
  const feed = new TideFeed(() => {});
  feed.push(LAYOUT);
  for (let position = 0; position < 100; position++) {
    feed.skip();
    feed.push(row(position));
  }
  feed.end();
  const [first, ...rest] = await all(feed);
  const rows = rest.filter(isRow);
  assert.equal(first?.kind, "layout");
  assert.deepEqual([rows.length, rows[0]?.position, rows.at(-1)?.position], [15, 85, 99]);
  assert.equal(rows.reduce((sum, { skipped }) => sum + 1 + skipped, 0), 200, "every row is shown or counted");
});

Deno.test("TideFeed keeps the newest description of a slow watcher, and counts the row before it", async () => {
  const feed = new TideFeed(() => {});
  feed.push(row(0));
  for (let promptTokens = 1; promptTokens <= 30; promptTokens++) feed.push({ ...LAYOUT, promptTokens });
  feed.push(row(1));
  feed.end();
  const events = await all(feed);
  const layouts = events.flatMap((event) => event.kind === "layout" ? [event.promptTokens] : []);
  assert.deepEqual([layouts[0], layouts.at(-1)], [16, 30]);
  assert.deepEqual(events.filter(isRow).map(({ position, skipped }) => [position, skipped]), [[1, 1]]);
});

Deno.test("TideFeed is due again after 50 ms, and later after many positions", () => {
  const feed = new TideFeed(() => {});
  const waitFor = (positions: number) => {
    const layers = [{ layer: 2, position: 1, sets: [new Uint32Array(positions)] }];
    feed.ask();
    feed.push({ kind: "row", position: 1, rows: 1, attention: "sparse", layers });
    return feed.waitMs;
  };
  assert.ok(waitFor(256) > 40 && waitFor(256) <= 50);
  assert.ok(waitFor(40_000) > 180 && waitFor(40_000) <= 200);
});

Deno.test("GET /v1/sequences/{id}/tide streams events until the response ends, none of one that has ended, and 404 without one", async () => {
  await withWatchedGroup([32], async (scheduler) => {
    using service = await TestService.open({ selections: scheduler.selections });
    const request = generationRequest({
      id: "chatcmpl-1",
      promptTokens: promptOf(100),
      maxTokens: 5,
      attention: SPARSE,
    });
    const generation = scheduler.generate(request);
    const response = await service.app.request("/v1/sequences/chatcmpl-1/tide");
    assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
    const text = response.text();
    await collect(generation);
    const events = (await text).split("\n\n").filter((frame) => frame.startsWith("event: ")).map((frame) => {
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(frame) ?? [];
      return { name, data: JSON.parse(data ?? "") };
    });
    assert.deepEqual(events.map(({ name }) => name).filter((name, i, all) => name !== all[i - 1]), [
      "layout",
      "row",
      "end",
    ]);
    assert.deepEqual(events[1]?.data, {
      ...{ position: 100, rows: 1, attention: "sparse", skipped: 0 },
      layers: [{ layer: 2, sets: [[...CHOSEN]] }],
    });
    for (const [path, status] of [["chatcmpl-1", 200], ["chatcmpl-2", 404], ["chatcmpl-1?index=x", 400]] as const) {
      const refused = await service.app.request(`/v1/sequences/${path.replace(/(\?.*)?$/, "/tide$1")}`);
      assert.equal(refused.status, status, path);
      await refused.body?.cancel();
    }
  });
});
