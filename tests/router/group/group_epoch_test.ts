/** An epoch whose worker is reached no more, before anyone has noticed. */

import assert from "node:assert/strict";
import type { Step } from "../../../engine/span.ts";
import { type Breach, GroupEpoch } from "../../../router/group/group_epoch.ts";
import { SelectionRecord } from "../../../router/group/selection_record.ts";
import { WorkerClient } from "../../../router/group/worker_client.ts";
import { admit } from "../../../workers/handshake.ts";

/** More than half of what may wait for a worker. */
const LARGE_TOKENS = 10 << 20;

const NO_TRACE: readonly string[] = [];

function largeStep(index: number): Step {
  const tokens = new Uint32Array(LARGE_TOKENS);
  const span = { kind: "prefill", sequence: 1, from: 0, tokens, logits: "none", newPages: new Uint32Array() } as const;
  return { index, open: [], release: [], spans: [span], deadlineMs: 60_000 };
}

Deno.test("GroupEpoch ends with the loss of a worker that a step cannot be sent to", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = listener.accept().then(async (conn) => {
    await admit(conn, "worker", { secret: undefined });
    return conn;
  });
  const address = { hostname: "127.0.0.1", port: listener.addr.port };
  const client = await WorkerClient.connect({
    ...address,
    secret: undefined,
    trust: undefined,
    epoch: 1,
    workerIndex: 0,
  });
  // From here on it reads nothing.
  const conn = await accepted;
  const worker = { name: "worker 0", client, address, kvPages: 1 };
  const breaches: Breach[] = [];
  const epoch = new GroupEpoch({
    epoch: 1,
    workers: [worker],
    selections: new SelectionRecord(),
    matrix: false,
    alike: true,
    replicaPages: 0,
    sparseExchange: "states",
    exchangeChoice: undefined,
    onBroken: (breach) => breaches.push(breach),
  });
  const ends = [1, 2].map((index) => epoch.run(largeStep(index), NO_TRACE));
  for (const end of await Promise.allSettled(ends)) {
    assert.equal(end.status === "rejected" && end.reason.code, "worker_lost");
  }
  assert.deepEqual(breaches.map(({ culprits }) => culprits), [[worker]]);
  assert.match(client.loss?.message ?? "", /bytes are waiting already/);
  conn.close();
  listener.close();
  await client.close();
});
