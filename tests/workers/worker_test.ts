/** A worker and its session, in this process, around a fake engine: order, refusals, failures, and every way to end. */

import assert from "node:assert/strict";
import type { OpenEngine } from "../../workers/engine_host.ts";
import { introduce } from "../../workers/handshake.ts";
import { Link } from "../../workers/link.ts";
import { parseWorkerMessage, type RouterMessage, type WorkerMessage } from "../../workers/protocol.ts";
import { runWorker, type WorkerOptions } from "../../workers/worker.ts";
import { FAKE_INFO, fakeMaskedStep, fakeStep, MODELS, openFake, TRICKS } from "../support/fake_engine.ts";
import { loneForm } from "../support/lone_form.ts";

type RouterEnd = Link<RouterMessage, WorkerMessage>;

/** What a worker of a test is like, and what became of it. */
interface Stage {
  readonly conn: Deno.TcpConn;
  readonly router: RouterEnd;
  readonly exitCode: Promise<number>;
  readonly log: readonly string[];
  next(): Promise<WorkerMessage>;
}

/** Runs a standalone worker, greets it as its router, and hands both to the test. */
async function onStage(options: Partial<WorkerOptions>, play: (stage: Stage) => Promise<void>): Promise<void> {
  const log: string[] = [];
  const listening = Promise.withResolvers<{ readonly port: number }>();
  const exitCode = runWorker({
    open: openFake,
    spawned: false,
    log: (line) => log.push(line),
    onListen: listening.resolve,
    ...options,
  });
  exitCode.catch(listening.reject);
  const { port } = await listening.promise;
  const conn = await Deno.connect({ port });
  await introduce(conn, { role: "router", epoch: 1, workerIndex: 0 }, { secret: options.secret });
  const router: RouterEnd = new Link(conn, { parse: parseWorkerMessage });
  try {
    await play({ conn, router, exitCode, log, next: () => router.receive(15_000) });
  } finally {
    await router.close();
    await exitCode;
  }
}

/** Makes a worker a group of its own. */
function formOf(epoch: number): RouterMessage {
  return { kind: "form", ...loneForm(epoch), deadlineMs: 30_000 };
}

/** The same with the model loaded, alone in its group. */
function loaded(play: (stage: Stage) => Promise<void>, options: Partial<WorkerOptions> = {}): Promise<void> {
  return onStage(options, async (stage) => {
    stage.router.send({ kind: "load", load: { model: { random: MODELS.fine }, kvTokens: "auto" } });
    for (const kind of ["hello", "loading", "loading", "loaded"]) assert.equal((await stage.next()).kind, kind);
    stage.router.send(formOf(1));
    assert.deepEqual(await stage.next(), { kind: "formed", epoch: 1 });
    await play(stage);
  });
}

Deno.test("runWorker() greets, reports progress and the model, and exits with 0 when the router leaves", async () => {
  let closed = 0;
  const open: OpenEngine = async (...args) => {
    const hosted = await openFake(...args);
    hosted.engine.close = () => Promise.resolve(void closed++);
    return hosted;
  };
  await onStage({ open, secret: "sixteen characters" }, async ({ router, next, exitCode }) => {
    assert.deepEqual(await next(), { kind: "hello", pid: Deno.pid });
    router.send({ kind: "load", load: { model: { random: MODELS.fine }, kvTokens: 4096 } });
    assert.deepEqual(await next(), { kind: "loading", doneBytes: 1, totalBytes: 4 });
    assert.deepEqual(await next(), { kind: "loading", doneBytes: 4, totalBytes: 4 });
    assert.deepEqual(await next(), { kind: "loaded", info: FAKE_INFO });
    await router.close();
    assert.equal(await exitCode, 0);
  });
  assert.equal(closed, 1);
});

Deno.test("runWorker() runs steps in order, answers pings between them, and reports to telemetry", async () => {
  const told: unknown[] = [];
  const onStep: WorkerOptions["onStep"] = (traceparents, step) => told.push([step.index, ...traceparents]);
  await loaded(async ({ router, next }) => {
    router.send({ kind: "step", step: fakeStep(1, [TRICKS.slow]), traceparents: ["a"] });
    router.send({ kind: "ping", id: 9 });
    router.send({ kind: "step", step: fakeStep(2, [1, 2]), traceparents: [] });
    const [first, pong, second] = [await next(), await next(), await next()];
    assert.equal(first.kind === "result" && first.result.index, 1);
    assert.deepEqual(pong, { kind: "pong", id: 9 });
    assert.equal(second.kind === "result" && second.result.spans[0]?.token, 3);
    assert.deepEqual(told, [[1, "a"], [2]]);
  }, { onStep });
});

Deno.test("runWorker() finishes what was sent before a drain, then exits with 0", async () => {
  await loaded(async ({ router, next, exitCode }) => {
    router.send({ kind: "step", step: fakeStep(1, [TRICKS.slow]), traceparents: [] });
    router.send({ kind: "drain" });
    assert.equal((await next()).kind, "result");
    await assert.rejects(next(), { code: "link_closed" });
    assert.equal(await exitCode, 0);
  });
});

Deno.test("runWorker() refuses a step with the engine's code and goes on", async () => {
  await onStage({}, async ({ router, next }) => {
    assert.equal((await next()).kind, "hello");
    router.send({ kind: "step", step: fakeStep(1, [1]), traceparents: [] });
    const message = "Cannot run step 1: no model is loaded";
    assert.deepEqual(await next(), { kind: "refused", index: 1, code: "invalid_step", message });
  });
  await loaded(async ({ router, next }) => {
    router.send({ kind: "step", step: fakeStep(1, [TRICKS.refuse]), traceparents: [] });
    const message = "Cannot append rows: no page is free";
    assert.deepEqual(await next(), { kind: "refused", index: 1, code: "kv_exhausted", message });
    router.send({ kind: "step", step: fakeStep(2, [1]), traceparents: [] });
    assert.equal((await next()).kind, "result");
  });
});

Deno.test("runWorker() hands a step the masks that follow it, before it begins or while it runs", async () => {
  await loaded(async ({ router, next }) => {
    router.send({ kind: "step", step: { ...fakeMaskedStep(1, [1]), followed: true }, traceparents: [] });
    router.send({ kind: "step", step: fakeMaskedStep(2, [2]), traceparents: [] });
    // The second one's come first here; those of a step that no one knows are dropped.
    router.send({ kind: "masks", step: 2, masks: Uint32Array.of(200) });
    router.send({ kind: "masks", step: 9, masks: Uint32Array.of(900) });
    router.send({ kind: "masks", step: 1, masks: Uint32Array.of(100) });
    for (const token of [101, 202]) {
      const message = await next();
      assert.equal(message.kind === "result" && message.result.spans[0]?.token, token);
    }
  });
});

Deno.test("runWorker() ends a step whose masks do not come: by its deadline, and with its epoch", async () => {
  await loaded(async ({ router, next, exitCode }) => {
    router.send({ kind: "step", step: fakeMaskedStep(1, [1], 100), traceparents: [] });
    const message = "Cannot draw in step 1: its masks did not come within 100 ms";
    assert.deepEqual(await next(), { kind: "severed", epoch: 1, code: "peer_late", message });
    router.send(formOf(2));
    assert.deepEqual(await next(), { kind: "formed", epoch: 2 });
    router.send({ kind: "step", step: fakeMaskedStep(2, [1]), traceparents: [] });
    router.send(formOf(3));
    assert.deepEqual(await next(), { kind: "formed", epoch: 3 });
    router.send({ kind: "step", step: fakeMaskedStep(3, [1]), traceparents: [] });
    await router.flush(15_000);
    await router.close();
    assert.equal(await exitCode, 0, "it does not wait for the masks of a router that has left");
  });
});

Deno.test("runWorker() gives up with the reason when the engine breaks, and exits with 1", async () => {
  const cases = [
    [TRICKS.crash, "unknown", "the fake engine fell over"],
    [TRICKS.loseDevice, "device_lost", "Cannot run step: the fake device is lost"],
  ] as const;
  for (const [trick, code, message] of cases) {
    await loaded(async ({ router, next, exitCode, log }) => {
      router.send({ kind: "step", step: fakeStep(1, [trick]), traceparents: [] });
      assert.deepEqual(await next(), { kind: "failed", code, message });
      assert.equal(await exitCode, 1);
      assert.match(log.join("\n"), new RegExp(message));
    });
  }
});

Deno.test("runWorker() reports why a model cannot be loaded, and exits with 1", async () => {
  await onStage({}, async ({ router, next, exitCode }) => {
    router.send({ kind: "load", load: { model: { random: MODELS.corrupt }, kvTokens: "auto" } });
    assert.equal((await next()).kind, "hello");
    assert.equal((await next()).kind, "loading");
    const message = "Cannot read model.safetensors: it is truncated";
    assert.deepEqual(await next(), { kind: "failed", code: "invalid_model", message });
    assert.equal(await exitCode, 1);
  });
});

Deno.test("runWorker() exits when the router is silent, and at once when it leaves in the middle of a step", async () => {
  await loaded(async ({ next, exitCode }) => {
    assert.deepEqual(await next(), {
      kind: "failed",
      code: "link_timeout",
      message: "Cannot receive: nothing came within 1500 ms",
    });
    assert.equal(await exitCode, 1);
  }, { silenceMs: 1500 });
  const begun = Promise.withResolvers<void>();
  const openEndless: OpenEngine = async (...args) => {
    const hosted = await openFake(...args);
    hosted.engine.run = () => {
      begun.resolve();
      return new Promise(() => {});
    };
    return hosted;
  };
  await loaded(async ({ router, exitCode }) => {
    router.send({ kind: "step", step: fakeStep(1, [1]), traceparents: [] });
    await begun.promise;
    await router.close();
    assert.equal(await exitCode, 0);
  }, { open: openEndless });
});

Deno.test("runWorker() counts the router's silence from the end of a step on", async () => {
  const silenceMs = 1000;
  let endedMs = Infinity;
  const openSlow: OpenEngine = async (...args) => {
    const hosted = await openFake(...args);
    const run = hosted.engine.run.bind(hosted.engine);
    hosted.engine.run = async (...step) => {
      // Half of a second silence is over then.
      await new Promise((resolve) => setTimeout(resolve, 1.5 * silenceMs));
      const result = await run(...step);
      endedMs = performance.now();
      return result;
    };
    return hosted;
  };
  await loaded(async ({ router, next, exitCode }) => {
    router.send({ kind: "step", step: fakeStep(1, [1]), traceparents: [] });
    assert.equal((await next()).kind, "result");
    assert.deepEqual(await next(), {
      kind: "failed",
      code: "link_timeout",
      message: `Cannot receive: nothing came within ${silenceMs} ms`,
    });
    const silentMs = performance.now() - endedMs;
    assert.ok(silentMs >= silenceMs - 1, `${silentMs} ms`);
    assert.equal(await exitCode, 1);
  }, { open: openSlow, silenceMs });
});

Deno.test("runWorker() exits with 1 when the router sends garbage", async () => {
  await loaded(async ({ conn, exitCode, log }) => {
    await conn.write(new TextEncoder().encode("this is no frame at all"));
    assert.equal(await exitCode, 1);
    assert.match(log.join("\n"), /exceeds the limit.*\(protocol\)/);
  });
});

Deno.test("runWorker() refuses to listen beyond loopback without a secret, or with a short one", async () => {
  const options = { open: openFake, spawned: false, log: () => {}, listen: { hostname: "0.0.0.0", port: 0 } };
  await assert.rejects(runWorker(options), { code: "insecure_listen", message: /beyond loopback a secret is needed/ });
  await assert.rejects(runWorker({ ...options, secret: "short" }), { code: "no_secret", message: /has 5 characters/ });
});
