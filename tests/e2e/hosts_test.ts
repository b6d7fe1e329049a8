/** A sample of `tests/hosts/run.ts`: router and workers on hosts of their own, found, left and joined again under load. */

import assert from "node:assert/strict";
import { whyNoHosts } from "../hosts/network.ts";
import { Scene } from "../hosts/scene.ts";
import { StreamLoad } from "../hosts/stream_load.ts";
import { HAS_NATS } from "../support/nats_server.ts";

const REASON = await whyNoHosts();
const FOUND = HAS_NATS ? "nats" : "dns";

Deno.test({
  name: `streams go on while a worker on another host, found by ${FOUND}, is restarted${
    REASON === undefined ? "" : ` (left out: ${REASON})`
  }`,
  ignore: REASON !== undefined,
  async fn() {
    await using scene = await Scene.open(FOUND);
    scene.startRouter();
    await scene.addWorker();
    await scene.addWorker();
    await scene.whole(2);
    const both = await scene.capacity();
    const load = new StreamLoad(scene.url, 2);
    await load.more(1);
    scene.kill(1, "SIGTERM");
    // The group holds less without it, and as much as before with it.
    await scene.until((ready) => ready.workers?.length === 1 && ready.max_context_tokens === both / 2);
    await scene.until((ready) => ready.workers?.length === 2 && ready.max_context_tokens === both);
    const { ended, equal, failed } = await load.stop();
    assert.deepEqual(failed, []);
    assert.ok(ended >= 2);
    // For a while one worker computed alone, in another order of additions; no token of this text is near a tie.
    assert.equal(equal, ended);
    assert.deepEqual(scene.workers.map(({ ends }) => ends.length), [0, 1]);
    assert.equal(scene.workers[1]?.ends[0], 0, "a worker that was asked to stop ends in order");
  },
});
