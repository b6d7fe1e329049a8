/** A scheduler on a fake group for the length of one test, and the check that nothing was left behind. */

import assert from "node:assert/strict";
import type { GenerationRequest } from "../../router/scheduling/generation.ts";
import { Scheduler } from "../../router/scheduling/scheduler.ts";
import type { SchedulerOptions } from "../../router/scheduling/scheduler_options.ts";
import { FakeGroup } from "./fake_group.ts";
import type { FakeGroupOptions } from "./fake_group_options.ts";
import { runAlone } from "./fake_tokens.ts";
import { collect } from "./generation_request.ts";
import { until } from "./until.ts";

/** Runs a test on a fresh group, and checks at its end that nothing was left behind. */
export async function withScheduler(
  options: FakeGroupOptions & { readonly scheduler?: SchedulerOptions },
  test: (scheduler: Scheduler, group: FakeGroup) => Promise<void>,
): Promise<void> {
  const group = new FakeGroup(options);
  const scheduler = new Scheduler(group, options.scheduler);
  try {
    await test(scheduler, group);
    group.resume();
    if (group.state.kind === "ready") await until(() => group.open === 0);
    scheduler.check();
    assert.equal(scheduler.stats().pages.used, 0);
    assert.deepEqual(group.complaints, []);
  } finally {
    await Promise.all([scheduler.close(), group.close()]);
  }
}

/** Checks that a request gets exactly what it would get alone. */
export async function assertAlone(scheduler: Scheduler, request: GenerationRequest): Promise<void> {
  const { tokens, reason, code } = await collect(scheduler.generate(request));
  assert.deepEqual({ tokens, reason, code }, { ...runAlone(request), code: undefined });
}
