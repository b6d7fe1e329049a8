/** What happens to requests when the group under them breaks: once they go on as if nothing had been, and never hang. */

import assert from "node:assert/strict";
import type { FakeGroup } from "../../support/fake_group.ts";
import { runAlone } from "../../support/fake_tokens.ts";
import { collect, generationRequest, promptOf } from "../../support/generation_request.ts";
import { until } from "../../support/until.ts";
import { assertAlone, withScheduler } from "../../support/with_scheduler.ts";

const LONG = generationRequest({ promptTokens: promptOf(150), maxTokens: 60 });

Deno.test("Scheduler rebuilds a running request on a new group, and goes on token for token", () =>
  withScheduler({}, async (scheduler, group) => {
    const { tokens, reason } = await collect(scheduler.generate(LONG), (count) => {
      if (count !== 20) return;
      group.break();
      setTimeout(() => group.recover(), 10);
    });
    assert.deepEqual({ tokens, reason }, runAlone(LONG));
    assert.equal(scheduler.stats().replays, 1);
  }));

Deno.test("Scheduler does not run on a lost worker although the group still calls itself ready", () =>
  withScheduler({}, async (scheduler, group) => {
    let stepsAtLoss = 0;
    const { tokens } = await collect(scheduler.generate(LONG), (count) => {
      if (count !== 20) return;
      stepsAtLoss = group.steps.length;
      group.loseStep();
      setTimeout(() => {
        assert.equal(group.steps.length, stepsAtLoss, "no step ran before the new worker was there");
        group.recover();
      }, 10);
    });
    assert.deepEqual(tokens, runAlone(LONG).tokens);
    assert.equal(scheduler.stats().replays, 1);
  }));

Deno.test("Scheduler notices that the group broke while no step ran", () =>
  withScheduler({ scheduler: { maxUnread: 4 } }, async (scheduler, group) => {
    await collect(scheduler.generate(LONG));
    const paused = scheduler.generate(LONG);
    await until(() => paused.usage().completionTokens > 2 && group.steps.at(-1)?.spans.length === 1);
    group.break();
    group.recover();
    const { tokens } = await collect(paused);
    assert.deepEqual(tokens, runAlone(LONG).tokens);
    assert.equal(paused.usage().cachedTokens, 128, "that was before");
    const opens = group.steps.flatMap((step) => step.open);
    assert.equal(opens.at(-1)?.prefixPages.length, 0, "nothing of the old cache is trusted");
  }));

/** Breaks the group whenever it is about to draw the token of that index. */
function breakAt(group: FakeGroup, index: number, promptTokens: number): void {
  const run = group.run.bind(group);
  group.run = (step, traceparents) => {
    const fatal = step.spans.some(({ from, tokens, logits }) =>
      logits !== "none" && from + tokens.length === promptTokens + index
    );
    if (fatal) {
      group.loseStep();
      setTimeout(() => group.recover(), 10);
    }
    return run(step, traceparents);
  };
}

Deno.test("Scheduler queues a request that has drawn nothing once more only, then gives it the error", () =>
  withScheduler({}, async (scheduler, group) => {
    breakAt(group, 0, 150);
    const { tokens, code } = await collect(scheduler.generate(LONG));
    assert.deepEqual([code, tokens], ["worker_lost", []]);
    assert.equal(scheduler.stats().replays, 1);
    await until(() => group.state.kind === "ready");
    await assertAlone(scheduler, generationRequest());
  }));

Deno.test("Scheduler rebuilds a streaming request as often as the group breaks, while it gets on", () =>
  withScheduler({}, async (scheduler, group) => {
    const { tokens, reason } = await collect(scheduler.generate(LONG), (count) => {
      if (![20, 21, 40].includes(count)) return;
      group.break();
      setTimeout(() => group.recover(), 5);
    });
    assert.deepEqual({ tokens, reason }, runAlone(LONG));
    assert.ok(scheduler.stats().replays >= 2);
  }));

Deno.test("Scheduler does not rebuild a request twice at the same token, then gives it the error", () =>
  withScheduler({}, async (scheduler, group) => {
    breakAt(group, 20, 150);
    const { tokens, code } = await collect(scheduler.generate(LONG));
    assert.equal(code, "worker_lost");
    assert.deepEqual(tokens, runAlone(LONG).tokens.slice(0, 20), "what was drawn before is not taken back");
    await until(() => group.state.kind === "ready");
    await assertAlone(scheduler, generationRequest());
  }));

Deno.test("Scheduler ends requests with group_unavailable when the group stays away, and lets new ones try later", () =>
  withScheduler({ scheduler: { recoverMs: 30 } }, async (scheduler, group) => {
    const { code } = await collect(scheduler.generate(LONG), (count) => {
      if (count === 5) group.break();
    });
    assert.equal(code, "group_unavailable");
    assert.throws(() => scheduler.generate(LONG), { code: "loading" });
    assert.deepEqual([scheduler.stats().running, scheduler.stats().waiting], [0, 0]);
  }));

Deno.test("Scheduler ends requests at once when the group is broken for good, and refuses new ones", () =>
  withScheduler({}, async (scheduler, group) => {
    const { code } = await collect(scheduler.generate(LONG), (count) => {
      if (count !== 5) return;
      group.break();
      setTimeout(() => group.break({ kind: "broken", reason: "the worker died" }), 5);
    });
    assert.equal(code, "group_unavailable");
    assert.throws(() => scheduler.generate(LONG), {
      code: "group_unavailable",
      message: /the workers failed for good$/,
    });
  }));

Deno.test("Scheduler ends requests at once when the group is closed", () =>
  withScheduler({}, async (scheduler, group) => {
    const { code } = await collect(scheduler.generate(LONG), (count) => {
      if (count === 5) void group.close();
    });
    assert.equal(code, "group_unavailable");
  }));

Deno.test("Scheduler does not go on with another model's tokens, nor where it no longer fits", async (t) => {
  for (const model of [{ digest: "0".repeat(64) }, { kvPages: 3 }]) {
    await t.step(Object.keys(model).join(), () =>
      withScheduler({}, async (scheduler, group) => {
        const { code } = await collect(scheduler.generate(LONG), (count) => {
          if (count !== 5) return;
          group.break();
          group.recover(model);
        });
        assert.equal(code, "group_unavailable");
      }));
  }
});

Deno.test("Scheduler forgets a request that was cancelled while the group broke", () =>
  withScheduler({}, async (scheduler, group) => {
    const generation = scheduler.generate(LONG);
    const { code, reason } = await collect(generation, (count) => {
      if (count !== 5) return;
      group.hold();
      setTimeout(() => {
        generation.cancel();
        group.break();
        group.recover();
      }, 5);
    });
    assert.deepEqual([code, reason], [undefined, undefined]);
    assert.equal((await collect(scheduler.generate(LONG))).reason, "length");
    assert.equal(scheduler.stats().replays, 0);
  }));

Deno.test("Scheduler follows a group that changes on purpose, however often at the same token", () =>
  withScheduler({}, async (scheduler, group) => {
    let changes = 0;
    const run = group.run.bind(group);
    // Each time before the sequence has got any further than the last time.
    group.run = async (step, traceparents) => {
      if (changes < 3 && step.spans.some(({ kind }) => kind === "prefill")) {
        changes++;
        const result = await run(step, traceparents);
        group.break({ kind: "loading", progress: 0, isPlanned: true });
        setTimeout(() => group.recover(), 1);
        return result;
      }
      return await run(step, traceparents);
    };
    const { tokens, reason } = await collect(scheduler.generate(LONG));
    assert.equal(changes, 3);
    assert.deepEqual({ tokens, reason }, runAlone(LONG));
  }));

Deno.test("Scheduler takes requests while a group that has served forms again, for as long as it may take", () =>
  withScheduler({ scheduler: { recoverMs: 400 } }, async (scheduler, group) => {
    await collect(scheduler.generate(LONG));
    const { state } = group;
    assert.ok(state.kind === "ready");
    const again = { kind: "loading", progress: 0, model: state.model } as const;
    group.break(again);
    setTimeout(() => group.recover(), 10);
    await assertAlone(scheduler, LONG);
    group.break(again);
    assert.equal((await collect(scheduler.generate(LONG))).code, "group_unavailable");
    group.recover();
    await assertAlone(scheduler, LONG);
  }));
