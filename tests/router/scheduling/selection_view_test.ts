/** A client finds the selections of its own response, while it runs and for a while after. */

import assert from "node:assert/strict";
import type { SequenceId } from "../../../engine/span.ts";
import { Scheduler } from "../../../router/scheduling/scheduler.ts";
import { SelectionView } from "../../../router/scheduling/selection_view.ts";
import type { ChosenPositions, SelectionSource } from "../../../router/group/group.ts";
import { FakeGroup } from "../../support/fake_group.ts";
import { fakeModel } from "../../support/fake_model.ts";
import { collect, generationRequest, promptOf } from "../../support/generation_request.ts";
import { MODEL_INFO, TestService } from "../../support/test_service.ts";

/** Remembers a selection of one position for every sequence: its id. */
const IDS: SelectionSource = { of: (sequence) => [chosen(sequence)] };

function chosen(sequence: SequenceId): ChosenPositions {
  return { layer: 2, position: 100, sets: [Uint32Array.of(sequence), Uint32Array.of(0, 70)] };
}

function viewOf(slices: readonly number[], selections?: SelectionSource): SelectionView {
  const state = { kind: "ready", epoch: 1, model: fakeModel({ slices }) } as const;
  return new SelectionView(selections === undefined ? { state } : { state, selections });
}

Deno.test("SelectionView.read() follows a request from the queue through several lives to its end", () => {
  const view = viewOf([4, 4], IDS);
  assert.equal(view.read("a"), undefined);
  view.name("a", undefined);
  assert.deepEqual(view.read("a"), { running: true, layers: [] });
  view.name("a", 7);
  assert.deepEqual(view.read("a"), { running: true, layers: [chosen(7)] });
  view.name("a", 9);
  view.end("a");
  assert.deepEqual(view.read("a"), { running: false, layers: [chosen(9)] });
});

Deno.test("SelectionView forgets ended requests, the oldest first, and running ones never", () => {
  const view = viewOf([4, 4], IDS);
  view.name("runs", 1);
  for (let i = 0; i < 300; i++) {
    view.name(`${i}`, i);
    view.end(`${i}`);
  }
  assert.deepEqual([view.read("0"), view.read("43")], [undefined, undefined]);
  assert.deepEqual(["44", "runs"].map((request) => view.read(request)?.running), [false, true]);
});

Deno.test("SelectionView.read() reports that a worker alone keeps its selections, unless they are there", () => {
  const alone = viewOf([4]);
  alone.name("a", 1);
  assert.throws(() => alone.read("a"), { code: "selection_unavailable", message: /unsupported in a group of one/ });
  assert.equal(alone.read("b"), undefined);
  const asked = viewOf([4], IDS);
  asked.name("a", 1);
  assert.deepEqual(asked.read("a")?.layers, [chosen(1)]);
});

Deno.test("Scheduler names its sequences for the view, rebuilt ones again", async () => {
  const group = Object.assign(new FakeGroup({ model: { slices: [32, 32] } }), { selections: IDS });
  const scheduler = new Scheduler(group);
  try {
    const seen = new Set<number | undefined>();
    const request = generationRequest({ id: "chatcmpl-1", promptTokens: promptOf(100), maxTokens: 30 });
    await collect(scheduler.generate(request), (count) => {
      const selection = scheduler.selections.read("chatcmpl-1");
      assert.ok(selection?.running);
      seen.add(selection.layers[0]?.sets[0]?.[0]);
      if (count !== 10) return;
      group.break();
      group.recover();
    });
    assert.deepEqual(scheduler.selections.read("chatcmpl-1"), { running: false, layers: [chosen(2)] });
    assert.deepEqual([...seen], [1, 2]);
  } finally {
    await Promise.all([scheduler.close(), group.close()]);
  }
});

Deno.test("GET /v1/sequences/{id}/selection shows layers, rows and positions of a choice", async () => {
  const group = {
    state: { kind: "ready", epoch: 1, model: { ...MODEL_INFO, slices: [32, 32] } } as const,
    selections: IDS,
  };
  const selections = new SelectionView(group);
  using service = await TestService.open({ selections });
  const ask = (path: string) => service.app.request(`/v1/sequences/${path}`);
  selections.name("chatcmpl-1", 5);
  selections.name("cmpl-2-0", 6);
  selections.name("cmpl-2-1", 7);
  selections.end("cmpl-2-1");
  const layersOf = (id: number) => [{ layer: 2, position: 100, sets: [[id], [0, 70]] }];
  assert.deepEqual(await (await ask("chatcmpl-1/selection")).json(), {
    object: "sequence.selection",
    id: "chatcmpl-1",
    index: 0,
    running: true,
    layers: layersOf(5),
  });
  assert.deepEqual((await (await ask("cmpl-2/selection")).json()).layers, layersOf(6));
  const second = await (await ask("cmpl-2/selection?index=1")).json();
  assert.deepEqual([second.index, second.running, second.layers], [1, false, layersOf(7)]);
  for (const [path, status] of [["cmpl-2/selection?index=2", 404], ["cmpl-9/selection", 404]] as const) {
    assert.equal((await ask(path)).status, status, path);
  }
  const wrong = await ask("cmpl-2/selection?index=-1");
  assert.deepEqual([wrong.status, (await wrong.json()).error.param], [400, "index"]);
});

Deno.test("GET /v1/sequences/{id}/selection is 409 in a group of one worker", async () => {
  const selections = viewOf([64]);
  selections.name("chatcmpl-1", 5);
  using service = await TestService.open({ selections });
  const refused = await service.app.request("/v1/sequences/chatcmpl-1/selection");
  assert.equal(refused.status, 409);
  assert.equal((await refused.json()).error.code, "selection_unavailable");
});
