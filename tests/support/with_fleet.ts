/** A fleet of fake groups for the length of one test, and the check that nothing was left behind. */

import assert from "node:assert/strict";
import { Fleet } from "../../router/fleet/fleet.ts";
import type { SchedulerOptions } from "../../router/scheduling/scheduler_options.ts";
import { FakeGroup } from "./fake_group.ts";
import type { FakeGroupOptions } from "./fake_group_options.ts";
import { until } from "./until.ts";

/** Runs a test on fresh groups, and checks at its end that nothing was left behind in any of them. */
export async function withFleet(
  { groups, scheduler = {} }: { readonly groups: readonly FakeGroupOptions[]; readonly scheduler?: SchedulerOptions },
  test: (fleet: Fleet, groups: readonly FakeGroup[]) => Promise<void>,
): Promise<void> {
  const fakes = groups.map((options) => new FakeGroup(options));
  const fleet = new Fleet(fakes, () => scheduler);
  try {
    // Schedulers see in a turn of their own what is ready.
    await new Promise((resolve) => setImmediate(resolve));
    await test(fleet, fakes);
    for (const group of fakes) group.resume();
    await until(() => fakes.every((group) => group.state.kind !== "ready" || group.open === 0));
    fleet.check();
    assert.deepEqual(fleet.groups.map(({ scheduler }) => scheduler.stats().pages.used), fakes.map(() => 0));
    assert.deepEqual(fakes.flatMap(({ complaints }) => complaints), []);
  } finally {
    await Promise.all([fleet.close(), ...fakes.map((group) => group.close())]);
  }
}
