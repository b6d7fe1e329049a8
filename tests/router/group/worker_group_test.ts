/** A group around a real worker process with a fake engine: every way to lose the worker, and what is seen of it. */

import assert from "node:assert/strict";
import { FAKE_INFO, fakeMaskedStep, fakeStep, MODELS, TRICKS } from "../../support/fake_engine.ts";
import { FAKE_ENTRY, IMPATIENT, PATIENT, RESTARTS, withGroup } from "../../support/group_stage.ts";
import { isRunning } from "../../support/processes.ts";
import { until } from "../../support/until.ts";

function lastPid(pids: readonly number[]): number {
  const pid = pids.at(-1);
  assert.ok(pid !== undefined);
  return pid;
}

Deno.test("WorkerGroup loads, runs two steps at a time, refuses what the engine refuses, and closes", async () => {
  await withGroup(async ({ group, states, ready }) => {
    await assert.rejects(group.run(fakeStep(0, [1]), []), {
      code: "group_unavailable",
      message: /the group is loading/,
    });
    await ready(1);
    assert.deepEqual(states, [
      { kind: "loading", progress: 0.25 },
      { kind: "loading", progress: 1 },
      {
        kind: "ready",
        epoch: 1,
        model: { ...FAKE_INFO, id: "tide", slices: [64], copyPages: 0, adapters: [FAKE_INFO.adapter] },
      },
    ]);
    const running = group.run(fakeStep(1, [20, 22]), ["00-trace"]);
    const next = group.run(fakeStep(2, [1, 2]), []);
    await assert.rejects(group.run(fakeStep(3, [1]), []), { code: "invalid_step", message: /2 other steps are still/ });
    assert.equal((await running).spans[0]?.token, 42);
    assert.equal((await next).spans[0]?.token, 3);
    await assert.rejects(group.run(fakeStep(3, [TRICKS.refuse]), []), {
      code: "kv_exhausted",
      message: "Cannot append rows: no page is free",
    });
    assert.equal((await group.run(fakeStep(4, [7]), [])).index, 4);
    assert.equal(
      (await group.run(fakeMaskedStep(5, [7]), [], Promise.resolve(Uint32Array.of(70)))).spans[0]?.token,
      77,
    );
    const last = group.run(fakeStep(6, [TRICKS.slow]), []);
    await group.close();
    assert.equal((await last).index, 6, "a step that runs when the group closes is finished");
    assert.equal(states.at(-1)?.kind, "closed");
    await assert.rejects(group.run(fakeStep(7, [7]), []), { code: "group_unavailable" });
  });
});

Deno.test("WorkerGroup replaces a worker that is killed, idle or in a step, under the next epoch", async () => {
  await withGroup(async ({ group, log, pids, ready }) => {
    await ready(1);
    Deno.kill(lastPid(pids), "SIGKILL");
    await ready(2);
    assert.match(log.join("\n"), /The worker is lost: .*was ended by SIGKILL/);

    const lost = assert.rejects(group.run(fakeStep(1, [TRICKS.hang]), []), { code: "worker_lost" })
      .then(() => assert.equal(group.state.kind, "loading", "the state changes before the step fails"));
    Deno.kill(lastPid(pids), "SIGKILL");
    await lost;
    await ready(3);
    assert.equal((await group.run(fakeStep(1, [2]), [])).index, 1);
    assert.equal(pids.length, 3);
  });
});

Deno.test("WorkerGroup replaces a worker that hangs: in a step by its deadline, idle by its silence", async () => {
  await withGroup(async ({ group, log, pids, ready }) => {
    await ready(1);
    Deno.kill(lastPid(pids), "SIGSTOP");
    await assert.rejects(group.run(fakeStep(1, [1], 200), []), {
      code: "deadline_exceeded",
      message: "Cannot finish step 1: the worker did not answer within 200 ms",
    });
    await ready(2);
    Deno.kill(lastPid(pids), "SIGSTOP");
    await ready(3);
    assert.match(log.join("\n"), /it was idle and silent for 2000 ms/);
  }, { patience: IMPATIENT });
});

Deno.test("WorkerGroup takes a worker that gives up in a step for lost, with its reason", async () => {
  await withGroup(async ({ group, ready }) => {
    await ready(1);
    await assert.rejects(group.run(fakeStep(1, [TRICKS.loseDevice]), []), {
      code: "worker_lost",
      message: "Cannot finish step 1: Cannot run step: the fake device is lost",
    });
    await ready(2);
  });
});

Deno.test("WorkerGroup is broken at once when the model itself is at fault", async () => {
  await withGroup(async ({ group, pids }) => {
    await until(() => group.state.kind === "broken");
    assert.deepEqual(group.state, { kind: "broken", reason: "Cannot read model.safetensors: it is truncated" });
    assert.equal(pids.length, 1);
  }, { models: [MODELS.corrupt] });
});

Deno.test("WorkerGroup gives up on a worker that dies again and again, and says how it died", async () => {
  await withGroup(async ({ group, pids }) => {
    await until(() => group.state.kind === "broken", 20_000);
    assert.match(group.state.kind === "broken" ? group.state.reason : "", /worker process \d+ exited with code 9/);
    assert.equal(pids.length, 3);
  }, { models: [MODELS.crashing], restarts: { ...RESTARTS, failures: 3 } });
});

Deno.test("WorkerGroup.close() ends a worker that is still loading, or not even started", async () => {
  await withGroup(async ({ group, states }) => {
    await until(() => states.length > 0);
    const started = performance.now();
    await group.close();
    // It would load for a minute.
    assert.ok(performance.now() - started < 40_000);
  }, { models: [MODELS.silent] });
  await withGroup(() => Promise.resolve());
});

Deno.test("WorkerGroup loses a worker that makes no progress while it loads", async () => {
  await withGroup(async ({ log }) => {
    await until(() => log.some((line) => line.includes("made no progress within 100 ms")));
  }, { models: [MODELS.silent], patience: { ...PATIENT, loadStallMs: 100 } });
});

Deno.test("A worker exits when its router is killed", async () => {
  const group = new URL("../../../router/group/worker_group.ts", import.meta.url).href;
  const membership = new URL("../../../router/group/membership/membership.ts", import.meta.url).href;
  const launcher = new URL("../../../router/host/worker_process.ts", import.meta.url).href;
  const code =
    `import { fixedMembership } from "${membership}"; import { WorkerGroup } from "${group}"; import { Launcher } from "${launcher}";
    const launcher = new Launcher({ entry: new URL("${FAKE_ENTRY.href}"), log: () => {} });
    const launch = async (signal) => { const worker = await launcher.launch(signal); pid = worker.pid; return worker; };
    let pid; const load = { model: { random: "fine" }, kvTokens: 64 };
    const members = [{ source: { start: launch, returns: false }, load }];
    const group = new WorkerGroup({ membership: fixedMembership(members), modelId: "m", log: () => {} });
    group.onState((state) => state.kind === "ready" && Deno.stdout.writeSync(new TextEncoder().encode(String(pid))));`;
  const router = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "-A", "--no-check", "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = router.stdin.getWriter();
  await writer.write(new TextEncoder().encode(code));
  await writer.close();
  const reader = router.stdout.getReader();
  const pid = Number(new TextDecoder().decode((await reader.read()).value));
  assert.ok(isRunning(pid));
  router.kill("SIGKILL");
  await router.status;
  await reader.cancel();
  await until(() => !isRunning(pid));
});
