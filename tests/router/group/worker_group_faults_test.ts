/** Groups of two and three real worker processes with fake engines: what breaks, who is to blame, how long it takes. */

import assert from "node:assert/strict";
import { FAKE_INFO, fakeStep, HELD_LINE, MODELS, TRICKS } from "../../support/fake_engine.ts";
import { PHASES } from "../../contracts/exchange_contract.ts";
import { FaultyProxy } from "../../support/faulty_proxy.ts";
import { type GroupStage, IMPATIENT, RESTARTS, withGroup } from "../../support/group_stage.ts";
import { until } from "../../support/until.ts";

const { fine, corrupt, other } = MODELS;
/** A lost worker shows a moment after the link to it; on a busy machine that may take a while. */
const TIRELESS = { ...RESTARTS, firstDelayMs: 300, longestDelayMs: 300, failures: 1000 };

/** Of a step in which a worker hangs: for the others to get as far as that, on a busy machine. */
const STEP_MS = 1500;

/** Of a step that is to fail well before its deadline. */
const LONG_MS = 60_000;

/** From a fault to the failure of its step, on a busy machine. */
const NOTICED_MS = 30_000;

function epochOf({ group }: GroupStage): number {
  assert.ok(group.state.kind === "ready", JSON.stringify(group.state));
  return group.state.epoch;
}

async function works({ group }: GroupStage, index: number): Promise<void> {
  const result = await group.run(fakeStep(index, [20, 22]), []);
  assert.deepEqual([result.index, result.spans[0]?.token], [index, 42]);
}

Deno.test("WorkerGroup forms one, two or three workers, and every exchange of a step gives what all together must give", async () => {
  for (const models of [[fine], [fine, fine], [fine, fine, fine]]) {
    await withGroup(async (stage) => {
      await stage.ready(1);
      const { group } = stage;
      const count = models.length;
      assert.deepEqual(group.state.kind === "ready" && group.state.model, {
        ...FAKE_INFO,
        id: "tide",
        kvPages: count * FAKE_INFO.kvPages,
        slices: models.map(() => FAKE_INFO.kvPages),
        copyPages: 0,
        adapters: models.map(() => "fake"),
      });
      for (let index = 1; index <= 30; index++) await works(stage, index);
      const { timing } = await group.run(fakeStep(31, [1]), []);
      assert.equal(timing.exchange === undefined, count === 1);
      if (timing.exchange !== undefined) {
        const { states, queries, rows, candidates } = timing.exchange.bytes;
        assert.ok(states > 0 && queries > 0 && rows === 0 && candidates > 0, "the lead sends itself no rows");
      }
      const [first] = group.selections.of(0);
      assert.equal(first?.sets.length, count === 1 ? undefined : 2);
      await assert.rejects(group.run(fakeStep(40, [TRICKS.refuse]), []), { code: "kv_exhausted" });
      await works(stage, 41);
      assert.equal(epochOf(stage), 1);
    }, { models });
  }
});

/** What happens to worker 1 of two, before an exchange of a step. */
const FAULTS = {
  kill: { trick: TRICKS.die, code: "worker_lost", log: /^Worker 1 is lost: .*was ended by SIGKILL/, survives: false },
  stop: {
    trick: TRICKS.stop,
    code: "deadline_exceeded",
    log: /^Worker 1 is lost: .*: worker 1 did not/,
    survives: false,
  },
  cut: { trick: TRICKS.hold, code: "worker_lost", log: /^The group is formed again: /, survives: true },
  corrupt: { trick: TRICKS.hold, code: "worker_lost", log: /^The group is formed again: /, survives: true },
} as const;

Deno.test("WorkerGroup survives each fault at each point of a step: the step fails in time, once, and the group is formed again", async (t) => {
  const proxies: FaultyProxy[] = [];
  const between: Parameters<typeof withGroup>[1] = {
    models: [fine, fine],
    restarts: TIRELESS,
    between(index, host) {
      const proxy = new FaultyProxy(host.address);
      proxies[index] = proxy;
      return proxy.host(host);
    },
  };
  await withGroup(async (stage) => {
    await stage.ready(1);
    let index = 1;
    for (const [name, { trick, code, log, survives }] of Object.entries(FAULTS)) {
      for (const [before, phase] of PHASES.entries()) {
        await t.step(`${name} before ${phase}`, async () => {
          const [epoch, lines] = [epochOf(stage), stage.log.length];
          const pids = [stage.pidOf(0), stage.pidOf(1)];
          const startedAt = performance.now();
          const deadlineMs = trick === TRICKS.stop ? STEP_MS : LONG_MS;
          const step = stage.group.run(fakeStep(index++, [trick, 1, before], deadlineMs), []);
          const failed = assert.rejects(step, { code }).then(() => {
            assert.notEqual(stage.group.state.kind, "ready", "the state changes before the step fails");
          });
          if (trick === TRICKS.hold) {
            await until(() => stage.log.slice(lines).includes(HELD_LINE));
            // Worker 1 dials worker 0.
            if (name === "cut") proxies[0]?.cut("peer");
            else proxies[0]?.corrupt("peer");
            Deno.kill(stage.pidOf(1), "SIGUSR1");
          }
          await failed;
          assert.ok(performance.now() - startedAt < NOTICED_MS, `it failed after ${performance.now() - startedAt} ms`);
          await stage.ready(epoch + 1);
          assert.deepEqual(
            [stage.pidOf(0), stage.pidOf(1) === pids[1]],
            [pids[0], survives],
            "only the guilty is replaced",
          );
          const news = stage.log.slice(lines).filter((line) => /lost|again/.test(line));
          assert.equal(news.length, 1, news.join("\n"));
          assert.match(news[0] ?? "", log);
          await works(stage, index++);
        });
      }
    }
  }, between);
});

Deno.test("WorkerGroup replaces idle workers that die or hang, and forms again over a link that is cut while nothing runs", async () => {
  const proxies: FaultyProxy[] = [];
  await withGroup(async (stage) => {
    await stage.ready(1);
    Deno.kill(stage.pidOf(0), "SIGKILL");
    await stage.ready(2);
    Deno.kill(stage.pidOf(2), "SIGSTOP");
    await stage.ready(3);
    assert.match(stage.log.join("\n"), /Worker 2 is lost: .*it was idle and silent for 2000 ms/);
    await works(stage, 1);
    proxies[0]?.cut("peer");
    await stage.ready(4);
    assert.equal(stage.pids.length, 5, "three at first, and one for each that was lost");
    await works(stage, 2);
    for (const index of [0, 1, 2]) Deno.kill(stage.pidOf(index), "SIGKILL");
    await until(() => stage.group.state.kind === "ready" && stage.group.state.epoch > 4);
    await works(stage, 3);
  }, {
    models: [fine, fine, fine],
    patience: IMPATIENT,
    restarts: TIRELESS,
    between: (index, host) => (proxies[index] = new FaultyProxy(host.address)).host(host),
  });
});

Deno.test("WorkerGroup blames no worker when frames vanish between workers that are well", async () => {
  const proxies: FaultyProxy[] = [];
  await withGroup(async (stage) => {
    await stage.ready(1);
    proxies[0]?.swallow("peer");
    await assert.rejects(stage.group.run(fakeStep(1, [1], STEP_MS), []), {
      code: "deadline_exceeded",
      message: `Cannot finish step 1: worker 0 and worker 1 did not answer within ${STEP_MS} ms`,
    });
    await stage.ready(2);
    assert.equal(stage.pids.length, 2);
    await works(stage, 2);
  }, {
    models: [fine, fine],
    between: (index, host) => (proxies[index] = new FaultyProxy(host.address)).host(host),
  });
});

Deno.test("WorkerGroup gives up a worker that hangs while the group is formed", async () => {
  await withGroup(async (stage) => {
    await stage.ready(1);
    // Stopped at once after the death of the other: it cannot take part in the next forming.
    Deno.kill(stage.pidOf(0), "SIGKILL");
    Deno.kill(stage.pidOf(1), "SIGSTOP");
    await until(() => stage.group.state.kind === "ready" && stage.group.state.epoch > 1);
    assert.equal(stage.pids.length, 4);
    await works(stage, 1);
  }, { models: [fine, fine], patience: IMPATIENT, restarts: TIRELESS });
});

Deno.test("WorkerGroup breaks when workers disagree about a step", async () => {
  await withGroup(async (stage) => {
    await stage.ready(1);
    await assert.rejects(stage.group.run(fakeStep(1, [TRICKS.refuse, 1, PHASES.indexOf("rows")], 2 * STEP_MS), []), {
      code: "worker_lost",
      message: /worker 0 waits for worker 1, which is done|its workers disagree: .*worker 1: kv_exhausted/,
    });
    await stage.ready(2);
    assert.equal(stage.pids.length, 2);
    await works(stage, 2);
  }, { models: [fine, fine] });
});

Deno.test("WorkerGroup is broken when its workers have loaded different models, and names both", async () => {
  await withGroup(async ({ group }) => {
    await until(() => group.state.kind === "broken");
    const reason = 'Cannot form group: worker 0 has digest "fake", worker 1 has "other"';
    assert.deepEqual(group.state, { kind: "broken", reason });
  }, { models: [fine, other] });
});

Deno.test("WorkerGroup goes on with the workers that are left, and reports the smaller capacity", async () => {
  await withGroup(async (stage) => {
    await until(() => stage.group.state.kind === "ready");
    assert.deepEqual(stage.group.state.kind === "ready" && stage.group.state.model.slices, [64, 64]);
    assert.ok(stage.log.includes("The group goes on with 2 of 3 workers"));
    assert.deepEqual(stage.group.workersUp, [true, false, true]);
    await works(stage, 1);
  }, { models: [fine, corrupt, fine] });
});

Deno.test("WorkerGroup finishes a step of several workers before it closes", async () => {
  await withGroup(async (stage) => {
    await stage.ready(1);
    const last = stage.group.run(fakeStep(1, [TRICKS.slow, 1, 2]), []);
    await stage.group.close();
    assert.equal((await last).index, 1);
  }, { models: [fine, fine] });
});
