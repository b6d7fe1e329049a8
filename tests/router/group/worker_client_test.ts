/** One worker as the router sees it, against one that the test plays: when it is pinged. */

import assert from "node:assert/strict";
import { type Patience, WorkerClient } from "../../../router/group/worker_client.ts";
import { admit } from "../../../workers/handshake.ts";
import { Link } from "../../../workers/link.ts";
import { parseRouterMessage, type RouterMessage, type WorkerMessage } from "../../../workers/protocol.ts";
import { fakeStep } from "../../support/fake_engine.ts";
import { PATIENT } from "../../support/group_stage.ts";
import { loneForm } from "../../support/lone_form.ts";
import { until } from "../../support/until.ts";

interface Stage {
  readonly client: WorkerClient;
  readonly worker: Link<WorkerMessage, RouterMessage>;
  /** What the router has sent so far. */
  readonly heard: readonly RouterMessage["kind"][];
}

/** Joins a client to a worker that answers nothing by itself. */
async function withClient(patience: Patience, play: (stage: Stage) => Promise<void>): Promise<void> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const place = { hostname: "127.0.0.1", port: listener.addr.port, secret: undefined, epoch: 1, workerIndex: 0 };
  const admitted = listener.accept().then(async (conn) => {
    await admit(conn, "worker", { secret: undefined });
    return conn;
  });
  const [client, conn] = await Promise.all([WorkerClient.connect(place, patience), admitted]);
  const worker = new Link<WorkerMessage, RouterMessage>(conn, { parse: parseRouterMessage });
  const heard: RouterMessage["kind"][] = [];
  const hearing = (async () => {
    for await (const { kind } of worker) heard.push(kind);
  })();
  const over = assert.rejects(hearing, { code: "link_closed" });
  try {
    await play({ client, worker, heard });
  } finally {
    await client.close();
    await worker.close();
    await over;
  }
}

Deno.test("WorkerClient pings an idle worker, and not one that runs a step, however long", async () => {
  await withClient({ ...PATIENT, pingEveryMs: 20 }, async ({ client, worker, heard }) => {
    const forming = client.form(loneForm(1), () => {});
    await until(() => heard.includes("form"));
    worker.send({ kind: "formed", epoch: 1 });
    await forming;
    await until(() => heard.includes("ping"));
    const answer = client.step(fakeStep(1, [1]), []);
    await until(() => heard.includes("step"));
    await new Promise((resolve) => setTimeout(resolve, 200));
    // A ping that was under way came before the step.
    assert.equal(heard.at(-1), "step");
    const timing = { encodeMs: 0, waitMs: 0, totalMs: 0 };
    worker.send({ kind: "result", result: { index: 1, spans: [{ sequence: 1, token: 1 }], timing } });
    assert.equal((await answer).kind, "result");
    await until(() => heard.at(-1) === "ping");
  });
});
