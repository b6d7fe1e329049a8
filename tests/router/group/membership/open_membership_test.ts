/** A group whose workers come and go as its membership says: taken in, left out, waited for, and why. */

import assert from "node:assert/strict";
import type { MemberPlan, Membership, MembershipListener } from "../../../../router/group/membership/membership.ts";
import { WorkerGroup } from "../../../../router/group/worker_group.ts";
import { fakeStep, MODELS, TRICKS } from "../../../support/fake_engine.ts";
import { FakeWorker } from "../../../support/fake_worker.ts";
import { PATIENT, RESTARTS } from "../../../support/group_stage.ts";
import { until } from "../../../support/until.ts";

const { fine, other } = MODELS;

/** A membership that says what the test says. */
class Reports implements Membership {
  readonly origin = "the test";
  readonly isOpen = true;
  #listener: MembershipListener | undefined;

  watch(listener: MembershipListener, signal: AbortSignal): Promise<void> {
    this.#listener = listener;
    return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  }

  report(...plans: readonly MemberPlan[]): void {
    this.#listener?.onMembers(plans);
  }

  trouble(reason: string | undefined): void {
    this.#listener?.onTrouble(reason);
  }
}

interface Stage {
  readonly group: WorkerGroup;
  readonly reports: Reports;
  readonly log: readonly string[];
  /** Waits until the group is ready with so many workers. */
  ready(workers: number): Promise<void>;
  /** How each member is. */
  states(): readonly string[];
}

async function withReports(
  play: (stage: Stage) => Promise<void>,
  options: { readonly minWorkers?: number; readonly gatherMs?: number } = {},
): Promise<void> {
  const reports = new Reports();
  const log: string[] = [];
  const group = new WorkerGroup({
    membership: reports,
    modelId: "tide",
    log: (line) => log.push(line),
    patience: PATIENT,
    restarts: RESTARTS,
    gatherMs: 300,
    ...options,
  });
  const slices = () => group.state.kind === "ready" ? group.state.model.slices.length : 0;
  try {
    await play({
      group,
      reports,
      log,
      ready: (workers) => until(() => slices() === workers),
      states: () => group.members.found.map(({ state }) => state),
    });
  } finally {
    await group.close();
  }
}

Deno.test("a group grows with each worker that is found, and says so while it has none", async () => {
  await using first = await FakeWorker.start();
  await using second = await FakeWorker.start();
  await withReports(async ({ group, reports, log, ready, states }) => {
    assert.deepEqual(group.state, { kind: "loading", progress: 0, reason: "No worker is found at the test" });
    reports.report(first.plan(fine));
    await ready(1);
    reports.report(first.plan(fine), second.plan(fine));
    await ready(2);
    assert.ok(group.state.kind === "ready" && group.state.isPlanned, "nothing went wrong");
    assert.equal((await group.run(fakeStep(1, [1, 2, 0]), [])).index, 1);
    assert.deepEqual(states(), ["present", "present"]);
    assert.ok(log.some((line) => line.startsWith("Worker 1 is found: 127.0.0.1:")));
  });
});

Deno.test("a worker that gets SIGTERM leaves after the step that runs, exits with 0, and is not waited for", async () => {
  await using stays = await FakeWorker.start();
  await using leaves = await FakeWorker.start();
  await withReports(async ({ group, reports, ready, states }) => {
    reports.report(stays.plan(fine), leaves.plan(fine));
    await ready(2);
    const running = group.run(fakeStep(1, [TRICKS.slow, 1, 0]), []);
    leaves.kill("SIGTERM");
    assert.equal((await running).index, 1, "the step is finished with both");
    await ready(1);
    assert.equal((await leaves.status).code, 0);
    assert.equal((await group.run(fakeStep(2, [1]), [])).index, 2);
    await until(() => states()[1] === "away");
    reports.report(stays.plan(fine));
    await until(() => states().length === 1);
  });
});

Deno.test("a worker that is killed is waited for, then the group goes on without it until it is found again", async () => {
  await using stays = await FakeWorker.start();
  await using dies = await FakeWorker.start();
  await withReports(async ({ group, reports, ready }) => {
    reports.report(stays.plan(fine), dies.plan(fine));
    await ready(2);
    const epoch = group.state.kind === "ready" ? group.state.epoch : 0;
    dies.kill("SIGKILL");
    await ready(1);
    await using again = await FakeWorker.start();
    reports.report(stays.plan(fine), again.plan(fine));
    await ready(2);
    assert.ok(group.state.kind === "ready" && group.state.epoch >= epoch + 2 && group.state.isPlanned);
  });
});

Deno.test("a worker with another model, or that is refused unasked, is left out with the reason", async () => {
  await using first = await FakeWorker.start();
  await using strange = await FakeWorker.start();
  await using old = await FakeWorker.start();
  await withReports(async ({ group, reports, ready, states }) => {
    reports.report(first.plan(fine));
    await ready(1);
    reports.report(
      first.plan(fine),
      strange.plan(other),
      old.plan(fine, "it speaks protocol version 5, this router 6"),
    );
    await until(() => states()[1] === "left_out");
    assert.deepEqual(states(), ["present", "left_out", "left_out"]);
    const [, wrong, refused] = group.members.found;
    assert.match(wrong?.reason ?? "", /^Cannot join group: worker 1 .* has digest "other", the group "fake"$/);
    assert.equal(refused?.reason, "it speaks protocol version 5, this router 6");
    assert.equal(group.state.kind === "ready" && group.state.epoch, 1, "nothing has changed for the group");
    // Its successor has the right version.
    reports.report(first.plan(fine), strange.plan(other), old.plan(fine));
    await ready(2);
    assert.deepEqual(states(), ["present", "left_out", "present"]);
  });
});

Deno.test("all workers gone, or back with another model: the group waits and does not end", async () => {
  await using first = await FakeWorker.start();
  await withReports(async ({ group, reports, ready, states }) => {
    reports.report(first.plan(fine));
    await ready(1);
    await using strange = await FakeWorker.start();
    first.kill("SIGKILL");
    reports.report(strange.plan(other));
    await until(() => states().length === 1 && states()[0] === "left_out");
    const { state } = group;
    assert.ok(
      state.kind === "loading" && state.model?.digest === "fake",
      "requests may wait for what was served before",
    );
    reports.report();
    strange.kill("SIGKILL");
    await until(() => states().length === 0);
    assert.ok(group.state.kind === "loading" && group.state.reason === "No worker is found at the test");
    await using back = await FakeWorker.start();
    reports.report(back.plan(fine));
    await ready(1);
  });
});

Deno.test("a connection that stands outlasts a membership that cannot be asked, or has forgotten it", async () => {
  await using first = await FakeWorker.start();
  await withReports(async ({ group, reports, log, ready, states }) => {
    reports.report(first.plan(fine));
    await ready(1);
    reports.trouble("Cannot resolve dns:workers:8100: no answer");
    reports.report();
    assert.equal(group.members.trouble, "Cannot resolve dns:workers:8100: no answer");
    assert.equal((await group.run(fakeStep(1, [1]), [])).index, 1);
    assert.deepEqual(states(), ["present"]);
    reports.report(first.plan(fine));
    reports.trouble(undefined);
    assert.equal(group.members.trouble, undefined);
    assert.deepEqual(log.slice(-2), [
      "Cannot resolve dns:workers:8100: no answer",
      "The members of the group can be found again",
    ]);
  });
});

Deno.test("a group waits for as many workers as it needs, and says how many are there", async () => {
  await using first = await FakeWorker.start();
  await using second = await FakeWorker.start();
  await withReports(async ({ group, reports, ready }) => {
    reports.report(first.plan(fine));
    await until(() => group.state.kind === "loading" && group.state.reason === "1 of at least 2 workers are there");
    reports.report(first.plan(fine), second.plan(fine));
    await ready(2);
    assert.equal(group.state.kind === "ready" && group.state.epoch, 1, "it was not formed before");
  }, { minWorkers: 2 });
});

Deno.test("workers in TLS form a group, and one whose certificate is not believed says so", async () => {
  const ca = await Deno.readTextFile(new URL("../../../fixtures/tls/cert.pem", import.meta.url));
  await using first = await FakeWorker.start({ ca });
  await using second = await FakeWorker.start({ ca });
  await using doubted = await FakeWorker.start({ ca, name: "other.example" });
  await withReports(async ({ group, reports, log, ready }) => {
    reports.report(first.plan(fine), second.plan(fine), doubted.plan(fine));
    await ready(2);
    assert.equal((await group.run(fakeStep(1, [1, 2, 0]), [])).index, 1);
    const doubts = /Worker 2 .*is lost: Cannot reach worker at .*: TLS: .*not valid for name/;
    await until(() => log.some((line) => doubts.test(line)));
  });
});
