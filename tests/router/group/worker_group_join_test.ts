/** Groups of workers that are started elsewhere: joined, trusted or not, gone and back again. */

import assert from "node:assert/strict";
import { Launcher } from "../../../router/host/worker_process.ts";
import { fixedMembership } from "../../../router/group/membership/membership.ts";
import type { Patience } from "../../../router/group/worker_client.ts";
import type { GroupState } from "../../../router/group/group.ts";
import { WorkerGroup } from "../../../router/group/worker_group.ts";
import { joinedWorker, type WorkerSource } from "../../../router/group/worker_source.ts";
import { admit } from "../../../workers/handshake.ts";
import { fakeStep, MODELS } from "../../support/fake_engine.ts";
import { FaultyProxy } from "../../support/faulty_proxy.ts";
import { FAKE_ENTRY, IMPATIENT, PATIENT, RESTARTS } from "../../support/group_stage.ts";
import { until } from "../../support/until.ts";

const { fine } = MODELS;

/** A group of workers that the test started itself. */
async function withJoined(
  sources: readonly WorkerSource[],
  play: (group: WorkerGroup, log: readonly string[]) => Promise<void>,
  options: { readonly hopelessMs?: number; readonly patience?: Patience } = {},
): Promise<void> {
  const log: string[] = [];
  const members = sources.map((source) => ({ source, load: { model: { random: fine }, kvTokens: 4096 } as const }));
  const group = new WorkerGroup({
    membership: fixedMembership(members),
    modelId: "tide",
    log: (line) => log.push(line),
    patience: PATIENT,
    restarts: { ...RESTARTS, failures: 2 },
    hopelessMs: 60_000,
    ...options,
  });
  try {
    await play(group, log);
  } finally {
    await group.close();
  }
}

Deno.test("WorkerGroup does not form workers that do not trust each other", async () => {
  const log = () => {};
  const sources = ["the secret of the first one", "the secret of the other one"].map((secret): WorkerSource => {
    const launcher = new Launcher({ entry: FAKE_ENTRY, secret, log });
    return { start: (signal) => launcher.launch(signal), returns: false };
  });
  await withJoined(sources, async (group) => {
    await until(() => group.state.kind === "broken");
    assert.match(group.state.kind === "broken" ? group.state.reason : "", /worker 1: .*holds another secret/);
    // The worker that is dialed waits for as long as it may.
  }, { patience: IMPATIENT });
});

Deno.test("WorkerGroup joins workers that run elsewhere, again when they come back, and never gives them up", async () => {
  const secret = "the secret of the whole group";
  const launcher = new Launcher({ entry: FAKE_ENTRY, secret, log: () => {} });
  let far = await launcher.launch();
  const proxy = new FaultyProxy({ port: 0 });
  // The worker comes back under the same address, on another port behind the proxy.
  proxy.target = far.address.port;
  try {
    const sources = [joinedWorker(proxy.address, secret)];
    await withJoined(sources, async (group, log) => {
      await until(() => group.state.kind === "ready");
      await far.stop(0);
      await until(() => group.state.kind === "loading");
      far = await launcher.launch();
      proxy.target = far.address.port;
      await until(() => group.state.kind === "ready" && group.state.epoch === 2);
      assert.equal((await group.run(fakeStep(1, [1]), [])).index, 1);
      assert.match(log.join("\n"), /The worker is lost/);
    });
    assert.equal((await far.exited).code, 0, "a worker exits when its router leaves");
  } finally {
    await far.stop(0);
    await proxy.close();
  }
});

/** A listener that speaks another version of the protocol. */
async function withStranger(play: (source: WorkerSource) => Promise<void>): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const versions = (async () => {
    for await (const conn of listener) {
      await assert.rejects(admit(conn, "worker", { secret: undefined, version: 2 ** 16 - 1 }), {
        code: "wrong_version",
      });
    }
  })();
  try {
    await play(joinedWorker({ hostname: "127.0.0.1", port: listener.addr.port }, undefined));
  } finally {
    listener.close();
    await versions;
  }
}

Deno.test("WorkerGroup reports a worker of another version, and is broken when none ever could be used", async () => {
  await withStranger((source) =>
    withJoined([source], async (group, log) => {
      const states: GroupState[] = [];
      group.onState((state) => states.push(state));
      await until(() => group.state.kind === "broken");
      assert.match(log[0] ?? "", /The worker is lost: .*the peer speaks protocol version 65535, this side \d+/);
      const reasons = states.flatMap((state) => state.kind === "loading" ? state.reason ?? [] : []);
      assert.match(reasons.at(-1) ?? "", /the peer speaks protocol version 65535/);
      assert.deepEqual(group.state, { kind: "broken", reason: reasons.at(-1) });
    }, { hopelessMs: 300 })
  );
});

Deno.test("WorkerGroup waits on while one worker may still be started", async () => {
  // Nothing listens there.
  const absent = joinedWorker({ hostname: "127.0.0.1", port: 1 }, undefined);
  await withStranger((stranger) =>
    withJoined([stranger, { ...absent, restarts: { ...RESTARTS, failures: 2 } }], async (group, log) => {
      const lost = () => log.filter((line) => line === "Worker 1 is lost: Cannot reach worker at 127.0.0.1:1").length;
      await until(() => group.state.kind === "loading" && group.state.reason !== undefined && lost() >= 2);
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal(group.state.kind, "loading");
      assert.equal(lost(), 2);
    }, { hopelessMs: 10 })
  );
});
