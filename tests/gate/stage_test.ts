/** Stages that end well, fail, hang or are stopped, and that nothing they started is left, even when the gate is killed. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

import { isRunning } from "../support/processes.ts";
import { until } from "../support/until.ts";
import { CpuMeter } from "./cpu_meter.ts";
import { Guard } from "./guard.ts";
import { runStage, type Stage, type StageHost } from "./stage.ts";

const DIRECTORY = fileURLToPath(new URL("../..", import.meta.url));

/** Starts a process of its own that would run for ten minutes, prints its id, then runs what follows. */
const PARENT = `
const child = new Deno.Command("sleep", { args: ["600"], stdout: "inherit" }).spawn();
console.log("started", child.pid);
`;

const evaluated = (code: string, fields: Partial<Stage> = {}): Stage => ({
  name: "it",
  args: ["eval", code],
  silenceMs: 60_000,
  ...fields,
});

interface Trial {
  readonly host: StageHost;
  readonly stop: AbortController;
  /** Id of the process that the stage started, once it has said so. */
  readonly started: Promise<number>;
}

/** Runs `body` with a guard; the output of a live stage names the process that it started. */
async function withHost(body: (trial: Trial) => Promise<void>): Promise<void> {
  await using guard = new Guard();
  const stop = new AbortController();
  const started = Promise.withResolvers<number>();
  const write = (text: string) => {
    const pid = /started (\d+)/.exec(text)?.[1];
    if (pid !== undefined) started.resolve(Number(pid));
  };
  await body({
    host: { guard, cpu: new CpuMeter(), directory: DIRECTORY, signal: stop.signal, write },
    stop,
    started: started.promise,
  });
}

const gone = (pid: number) => until(() => !isRunning(pid), 30_000);

Deno.test({
  name: "runStage() keeps OpenGL out of a stage, whose library races with ending threads when the process exits",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await withHost(async ({ host }) => {
      const code = 'await navigator.gpu.requestAdapter(); console.log(Deno.readTextFileSync("/proc/self/maps"))';
      const { complaint, stdout } = await runStage(evaluated(code), host);
      assert.equal(complaint, undefined);
      assert.match(stdout, /libvulkan/);
      assert.doesNotMatch(stdout, /libEGL/);
    });
  },
});

Deno.test("runStage() gives the output of a stage that ends well, and what its complaint finds", async () => {
  await withHost(async ({ host }) => {
    const code = 'console.log("out"); console.error("err")';
    const plain = await runStage(evaluated(code), host);
    assert.deepEqual([plain.complaint, plain.stdout], [undefined, "out\n"]);
    assert.match(plain.shown, /err/);
    assert.ok(plain.seconds > 0);
    // Deno itself takes more than a tick to start.
    if (Deno.build.os === "linux") assert.ok((plain.cpuSeconds ?? 0) > 0, `${plain.cpuSeconds} s`);
    const found = await runStage(evaluated(code, { complaint: (stdout) => `found ${stdout.trim()}` }), host);
    assert.equal(found.complaint, "found out");
  });
});

Deno.test("runStage() reports the code of a stage that fails, and leaves nothing that it started", async () => {
  await withHost(async ({ host, started }) => {
    const outcome = await runStage(evaluated(`${PARENT} Deno.exit(3)`, { live: true }), host);
    assert.equal(outcome.complaint, "ended with 3");
    await gone(await started);
  });
});

Deno.test("runStage() ends a stage that falls silent, with all that it started", async () => {
  await withHost(async ({ host, started }) => {
    const outcome = await runStage(evaluated(`${PARENT} await child.status`, { live: true, silenceMs: 3000 }), host);
    assert.equal(outcome.complaint, "printed nothing for 3 s");
    await gone(await started);
  });
});

Deno.test("runStage() ends a stage when another has failed, and starts no more", async () => {
  await withHost(async ({ host, stop, started }) => {
    const running = runStage(evaluated(`${PARENT} await child.status`, { live: true }), host);
    const pid = await started;
    stop.abort();
    assert.equal((await running).complaint, "stopped");
    await gone(pid);
    assert.equal((await runStage(evaluated("1"), host)).complaint, "not run");
  });
});

Deno.test("a gate that is killed leaves nothing running", async () => {
  const owner = `
    import { Guard } from "./tests/gate/guard.ts";
    import { runStage } from "./tests/gate/stage.ts";
    import { CpuMeter } from "./tests/gate/cpu_meter.ts";
    const guard = new Guard();
    console.log("guard", guard.pid);
    const stage = { name: "it", args: ["eval", ${
    JSON.stringify(`${PARENT} await child.status`)
  }], silenceMs: 60000, live: true };
    const write = (text) => console.log(text);
    await runStage(stage, { guard, cpu: new CpuMeter(), directory: Deno.cwd(), signal: new AbortController().signal, write });
  `;
  const gate = new Deno.Command(Deno.execPath(), {
    args: ["eval", owner],
    cwd: DIRECTORY,
    stdout: "piped",
    stderr: "null",
  }).spawn();
  let printed = "";
  for await (const text of gate.stdout.pipeThrough(new TextDecoderStream())) {
    printed += text;
    if (/guard \d+/.test(printed) && /started \d+/.test(printed)) break;
  }
  assert.match(printed, /started \d+/);
  gate.kill("SIGKILL");
  await gate.status;
  for (const name of ["guard", "started"]) await gone(Number(new RegExp(`${name} (\\d+)`).exec(printed)?.[1]));
});
