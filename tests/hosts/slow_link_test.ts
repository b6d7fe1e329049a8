/** A slow link is as slow as it says, loses its share and no connection, and is restored. */

import assert from "node:assert/strict";
import { fileExists } from "../../router/host/file_exists.ts";
import { Network, whyNoHosts } from "./network.ts";
import { SlowQueue } from "./slow_queue.ts";

Deno.test("SlowQueue delays in order, loses its share, and the same with the same seed", () => {
  const [first, second] = [0, 1].map(() => {
    const queue = new SlowQueue({ delayMs: 10, lossPercent: 1 }, 7);
    const left: number[] = [];
    for (let i = 0; i < 10_000; i++) {
      queue.push(Uint8Array.of(i % 256), i);
      assert.ok(queue.nextMs === undefined || queue.nextMs >= i);
      for (let packet = queue.pop(i); packet !== undefined; packet = queue.pop(i)) left.push(packet[0] ?? -1);
    }
    assert.equal(left.length + queue.lost + 10, 10_000, "ten are under way");
    assert.ok(queue.lost > 60 && queue.lost < 140, `${queue.lost} of 10,000 are lost`);
    return left;
  });
  assert.deepEqual(first, second);
});

Deno.test("SlowQueue holds a bounded number of packets", () => {
  const queue = new SlowQueue({ delayMs: 10, lossPercent: 0 }, 1);
  for (let i = 0; i < 1500; i++) queue.push(new Uint8Array(1), 0);
  assert.equal(queue.lost, 500);
});

const REASON = await whyNoHosts() ?? (await fileExists("/dev/net/tun") ? undefined : "needs /dev/net/tun");

Deno.test({
  name: `a slow link takes its delay both ways, and heals${REASON === undefined ? "" : ` (left out: ${REASON})`}`,
  ignore: REASON !== undefined,
  async fn() {
    await using network = await Network.open();
    await network.add("far", 2);
    const before = await network.roundTripMs(2);
    {
      await using _slow = await network.slow("far", { delayMs: 30, lossPercent: 0 });
      const slow = await network.roundTripMs(2);
      assert.ok(slow >= 60 && slow > before + 40, `${before} ms before, ${slow} ms by the slow link`);
    }
    const healed = await network.roundTripMs(2);
    assert.ok(healed < 60, `${healed} ms once it is healed`);
  },
});
