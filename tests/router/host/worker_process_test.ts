/** Real worker processes: they start, receive their secret in private, and are gone afterwards whatever happens. */

import assert from "node:assert/strict";
import { Launcher } from "../../../router/host/worker_process.ts";
import { WorkerClient } from "../../../router/group/worker_client.ts";
import { fakeStep, MODELS } from "../../support/fake_engine.ts";
import { loneForm } from "../../support/lone_form.ts";
import { isRunning } from "../../support/processes.ts";
import { until } from "../../support/until.ts";

const entry = new URL("../../support/fake_engine.ts", import.meta.url);

function launcherOf(args: readonly string[] = [], change: { entry?: URL; startMs?: number; prefix?: string[] } = {}): {
  readonly launcher: Launcher;
  readonly log: readonly string[];
} {
  const log: string[] = [];
  return { launcher: new Launcher({ entry, args, log: (line) => log.push(line), ...change }), log };
}

function write(code: string): URL {
  return new URL(`data:application/typescript,${encodeURIComponent(code)}`);
}

Deno.test("Launcher.launch() starts a worker that serves a router that knows its secret, and hides the secret", async () => {
  const { launcher, log } = launcherOf();
  const worker = await launcher.launch();
  try {
    const place = { ...worker.address, epoch: 1, workerIndex: 0 };
    const stranger = WorkerClient.connect({ ...place, secret: "a guess of a stranger" });
    await assert.rejects(stranger, { code: "wrong_secret" });
    const client = await WorkerClient.connect({ ...place, secret: worker.secret });
    const info = await client.load({ model: { random: MODELS.fine }, kvTokens: "auto" });
    assert.equal(info.adapter, "fake");
    await client.form({ ...loneForm(1), weights: [info.kvPages] }, () => {});
    const answer = await client.step(fakeStep(1, [4, 5]), ["trace"]);
    assert.equal(answer.kind === "result" && answer.result.spans[0]?.token, 9);
    for (const file of ["cmdline", "environ"]) {
      if (Deno.build.os !== "linux") continue;
      assert.ok(!(await Deno.readTextFile(`/proc/${worker.pid}/${file}`)).includes(worker.secret));
    }
    await client.drain(30_000);
    await client.close();
    assert.equal((await worker.exited).code, 0);
  } finally {
    await worker.stop(0);
  }
  assert.ok(!isRunning(worker.pid));
  assert.ok(log.some((line) => line.startsWith("A peer was turned away")));
});

Deno.test("Launcher.launch() runs the worker under its prefix, in one process", async () => {
  const { launcher, log } = launcherOf([], {
    entry: write(`
      const line = (stream, text) => stream.write(new TextEncoder().encode(text + "\\n"));
      await line(Deno.stdout, JSON.stringify({ kind: "listening", port: 1 }));
      await line(Deno.stderr, Deno.env.get("MARK") + " " + Deno.pid);
    `),
    prefix: ["sh", "-c", 'MARK=marked exec "$0" "$@"'],
  });
  const worker = await launcher.launch();
  await worker.stop(30_000);
  assert.deepEqual(log, [`marked ${worker.pid}`]);
});

Deno.test("Launcher.launch() reports a worker that exits before it listens, with its last words", async () => {
  const { launcher } = launcherOf([], {
    entry: write(`await Deno.stderr.write(new TextEncoder().encode("no luck\\n")); Deno.exit(3)`),
  });
  await assert.rejects(launcher.launch(), {
    code: "worker_lost",
    message: /^Cannot start worker: worker process \d+ exited with code 3: no luck$/,
  });
});

Deno.test("Launcher.launch() kills a worker that prints something else, or nothing in time, or is no longer wanted", async () => {
  const chatty = launcherOf([], {
    entry: write(`await Deno.stdout.write(new TextEncoder().encode("hello\\n")); setTimeout(() => {}, 60000)`),
  });
  await assert.rejects(chatty.launcher.launch(), { code: "worker_lost", message: /it printed "hello"/ });
  const mute = launcherOf([], { entry: write(`setTimeout(() => {}, 60000)`), startMs: 100 });
  await assert.rejects(mute.launcher.launch(), { code: "worker_lost", message: /does not listen after 100 ms/ });
  const unwanted = launcherOf().launcher.launch(AbortSignal.timeout(20));
  await assert.rejects(unwanted, { code: "worker_lost", message: /no longer wanted/ });
});

Deno.test("A spawned worker ignores SIGINT, heeds SIGTERM, and exits when no router comes", async () => {
  const { launcher, log } = launcherOf(["--silence-ms=700"]);
  const [lonely, asked] = await Promise.all([launcher.launch(), launcherOf().launcher.launch()]);
  try {
    Deno.kill(asked.pid, "SIGINT");
    assert.ok(!await asked.endsWithin(100));
    Deno.kill(asked.pid, "SIGTERM");
    assert.equal((await asked.exited).code, 0);
    assert.equal((await lonely.exited).code, 1);
    await until(() => log.some((line) => line.includes("no router came within 700 ms")));
  } finally {
    await Promise.all([lonely.stop(0), asked.stop(0)]);
  }
});

Deno.test("WorkerProcess.stop() ends a stopped process", async () => {
  const { launcher } = launcherOf();
  const worker = await launcher.launch();
  Deno.kill(worker.pid, "SIGSTOP");
  await worker.stop(0);
  assert.match(worker.lastWords ?? "", /was ended by SIGKILL/);
});
