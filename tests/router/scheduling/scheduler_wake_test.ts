/** When the scheduler looks for something to do. */

import { Scheduler } from "../../../router/scheduling/scheduler.ts";
import { FakeGroup } from "../../support/fake_group.ts";
import { generationRequest } from "../../support/generation_request.ts";
import { assertAlone } from "../../support/with_scheduler.ts";

Deno.test("Scheduler.generate() is noticed in the very turn in which the scheduler finds nothing to do", async () => {
  for (let turns = 0; turns < 12; turns++) {
    const group = new FakeGroup();
    const scheduler = new Scheduler(group, { queueTimeoutMs: 1000 });
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    await assertAlone(scheduler, generationRequest());
    await Promise.all([scheduler.close(), group.close()]);
  }
});
