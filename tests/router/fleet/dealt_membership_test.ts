/** Workers that come and go between several groups. */

import assert from "node:assert/strict";
import { DealtMembership } from "../../../router/fleet/dealt_membership.ts";
import type { MemberPlan, MembershipListener } from "../../../router/group/membership/membership.ts";

/** A membership that says what the test says, dealt to groups whose members are in `groups`. */
class Scene {
  readonly groups: (readonly string[])[];
  readonly troubles: (string | undefined)[];
  readonly stops: readonly AbortController[];
  watches = 0;
  ended = false;
  listener: MembershipListener | undefined;
  readonly watching: readonly Promise<void>[];

  constructor(count: number) {
    this.groups = Array.from({ length: count }, () => []);
    this.troubles = Array.from({ length: count }, () => undefined);
    this.stops = Array.from({ length: count }, () => new AbortController());
    const dealt = new DealtMembership({
      origin: "dns:workers:8100",
      isOpen: true,
      watch: (listener, signal) => {
        this.watches++;
        this.listener = listener;
        return new Promise((resolve) =>
          signal.addEventListener("abort", () => {
            this.ended = true;
            resolve();
          })
        );
      },
    }, count);
    this.watching = this.stops.map((stop, group) =>
      dealt.of(group).watch({
        onMembers: (plans) => void (this.groups[group] = plans.map(({ key }) => key)),
        onTrouble: (reason) => void (this.troubles[group] = reason),
      }, stop.signal)
    );
  }

  find(...keys: readonly string[]): readonly (readonly string[])[] {
    this.listener?.onMembers(keys.map((key) => ({ key }) as MemberPlan));
    return this.groups;
  }
}

Deno.test("DealtMembership deals by host, and evenly", () => {
  assert.deepEqual(new Scene(2).find("a:1", "b:1", "a:2", "b:2"), [["a:1", "a:2"], ["b:1", "b:2"]]);
  assert.deepEqual(new Scene(2).find("a:1", "b:1", "c:1"), [["a:1", "c:1"], ["b:1"]]);
  assert.deepEqual(new Scene(2).find("[::1]:1", "[::1]:2"), [["[::1]:1"], ["[::1]:2"]]);
  assert.deepEqual(new Scene(3).find("a:1"), [["a:1"], [], []]);
});

Deno.test("DealtMembership leaves members where they are, and gives new ones to groups that lack some", () => {
  const scene = new Scene(2);
  scene.find("a:1", "b:1");
  assert.deepEqual(scene.find("a:1", "b:1", "b:2"), [["a:1"], ["b:1", "b:2"]], "near its like");
  assert.deepEqual(scene.find("b:1", "b:2"), [[], ["b:1", "b:2"]], "no one moves");
  assert.deepEqual(scene.find("b:1", "b:2", "b:3"), [["b:3"], ["b:1", "b:2"]]);
  assert.deepEqual(scene.find(), [[], []]);
});

Deno.test("DealtMembership is watched once, until the last group has left, and reports trouble to all", async () => {
  const scene = new Scene(2);
  scene.listener?.onTrouble("Cannot resolve dns:workers:8100: no answer");
  assert.deepEqual(scene.troubles, Array(2).fill("Cannot resolve dns:workers:8100: no answer"));
  scene.stops[0]?.abort();
  assert.deepEqual([scene.watches, scene.ended], [1, false]);
  scene.find("a:1", "b:1");
  assert.deepEqual(scene.groups, [[], ["b:1"]], "who has left hears no more");
  scene.stops[1]?.abort();
  await Promise.all(scene.watching);
  assert.ok(scene.ended);
});
