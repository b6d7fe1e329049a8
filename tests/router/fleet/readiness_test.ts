/** When a service of several groups is ready, and when it is over. */

import assert from "node:assert/strict";
import { follow, type FollowedGroup } from "../../../router/fleet/readiness.ts";
import { fakeModel } from "../../support/fake_model.ts";
import type { GroupState } from "../../../router/group/group.ts";

/** A group that is in whatever state the test says. */
class ScriptedGroup implements FollowedGroup {
  state: GroupState = { kind: "loading", progress: 0 };
  readonly members = { origin: "--workers", found: [] };
  #listener: (state: GroupState) => void = () => {};

  onState(listener: (state: GroupState) => void): void {
    this.#listener = listener;
  }

  enter(state: GroupState): void {
    this.state = state;
    this.#listener(state);
  }
}

function scene(contextTokens = 0) {
  const groups = [new ScriptedGroup(), new ScriptedGroup()] as const;
  const lines: string[] = [];
  const progress: number[] = [];
  const followed = follow(groups, {
    contextTokens,
    onProgress: (fraction) => progress.push(fraction),
    log: (line) => lines.push(line),
  });
  return { groups, lines, progress, ...followed };
}

const ready = (pages: number): GroupState => ({ kind: "ready", epoch: 1, model: fakeModel({ slices: [pages] }) });

Deno.test("follow() is ready with all that its groups hold once none loads any more", async () => {
  const { groups: [first, second], progress, lines, ...service } = scene();
  first.enter({ kind: "loading", progress: 0.5 });
  assert.deepEqual(progress, [0.25]);
  first.enter(ready(64));
  second.enter(ready(32));
  const { kvTokens, contextTokens, workers } = await service.ready;
  assert.deepEqual([kvTokens, contextTokens], [96 * 64, 64 * 64]);
  assert.deepEqual(workers.map(({ group, kvTokens }) => [group, kvTokens]), [[0, 4096], [1, 2048]]);
  assert.deepEqual(lines, []);
});

Deno.test("follow() goes on with one group when the other fails for good, and is over when both have", async () => {
  const { groups: [first, second], lines, ...service } = scene();
  first.enter(ready(64));
  second.enter({ kind: "broken", reason: "no GPU" });
  assert.equal((await service.ready).kvTokens, 4096);
  assert.deepEqual(lines, ["Group 1 has failed for good, and the others go on: no GPU"]);
  first.enter({ kind: "broken", reason: "no GPU here either" });
  assert.equal(await service.broken, "no GPU here either");
});

Deno.test("follow() refuses a context that no group holds at first, not one that a smaller group came back with", async () => {
  const small = scene(4096);
  small.groups.forEach((group) => group.enter(ready(32)));
  assert.match(await small.broken, /a context of 4096 tokens does not fit: the workers hold 2048/);
  await assert.rejects(small.ready, { code: "group_unavailable" });
  const { groups: [first, second], ...service } = scene(4096);
  first.enter(ready(64));
  second.enter(ready(64));
  await service.ready;
  first.enter({ kind: "loading", progress: 0 });
  second.enter(ready(32));
  first.enter(ready(32));
  const outcome = await Promise.race([service.broken, new Promise((resolve) => setTimeout(resolve, 5, "goes on"))]);
  assert.equal(outcome, "goes on");
  for (const group of [first, second]) group.enter({ kind: "closed" });
});

Deno.test("follow() reports a group that has loaded another model", () => {
  const { groups: [first, second], lines } = scene();
  first.enter(ready(64));
  second.enter({ kind: "ready", epoch: 1, model: fakeModel({ digest: "0".repeat(64) }) });
  assert.match(lines[0] ?? "", /^Group 1 gets no requests: it has loaded another model \(digest 0+\) than the others$/);
});
