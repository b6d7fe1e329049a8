/** A group of real worker processes around fake engines, and everything it does. */

import assert from "node:assert/strict";
import type { GroupState } from "../../router/group/group.ts";
import { Launcher, type WorkerProcess } from "../../router/host/worker_process.ts";
import { fixedMembership } from "../../router/group/membership/membership.ts";
import { WorkerGroup, type WorkerGroupOptions } from "../../router/group/worker_group.ts";
import type { WorkerHost, WorkerSource } from "../../router/group/worker_source.ts";
import { MODELS } from "./fake_engine.ts";
import { isRunning } from "./processes.ts";
import { until } from "./until.ts";

/** The module that is a worker. */
export const FAKE_ENTRY = new URL("./fake_engine.ts", import.meta.url);

/** For tests: an idle worker is lost after 400 ms. */
export const IMPATIENT = { pingEveryMs: 50, unansweredPings: 8, loadStallMs: 5000, formMs: 1000 };
export const RESTARTS = { firstDelayMs: 20, longestDelayMs: 100, failures: 5, windowMs: 60_000 };

/** A group under test. */
export interface GroupStage {
  readonly group: WorkerGroup;
  readonly states: readonly GroupState[];
  readonly log: readonly string[];
  /** Of the workers started so far, in the order of their starts. */
  readonly pids: readonly number[];
  /** The process that is, or was last, at a place in the group. */
  pidOf(index: number): number;
  /** Waits until the group is ready under an epoch; @returns how long that took, in milliseconds */
  ready(epoch: number, deadlineMs?: number): Promise<number>;
}

/** How a group under test differs from one fine worker. */
export interface GroupStageOptions extends Partial<Omit<WorkerGroupOptions, "membership">> {
  /** Models of the workers, one for each. @default one fine one */
  readonly models?: readonly string[];
  /** Stands between the group and its workers. */
  readonly between?: (index: number, host: WorkerHost) => WorkerHost;
}

const SECRET = "the secret of a group under test";

/** Plays a test on a group, and makes sure that no process is left. */
export async function withGroup(
  play: (stage: GroupStage) => Promise<void>,
  { models = [MODELS.fine], between = (_, host) => host, ...change }: GroupStageOptions = {},
): Promise<void> {
  const log: string[] = [];
  const pids: number[] = [];
  const places: number[] = [];
  const states: GroupState[] = [];
  const launcher = new Launcher({
    entry: FAKE_ENTRY,
    args: ["--silence-ms=3000"],
    secret: SECRET,
    log: (line) => log.push(line),
  });
  const sourceOf = (index: number): WorkerSource => ({
    async start(signal) {
      const worker: WorkerProcess = await launcher.launch(signal);
      pids.push(worker.pid);
      places[index] = worker.pid;
      return between(index, worker);
    },
    returns: false,
  });
  const group = new WorkerGroup({
    membership: fixedMembership(
      models.map((random, i) => ({ source: sourceOf(i), load: { model: { random }, kvTokens: 4096 } })),
    ),
    modelId: "tide",
    log: (line) => log.push(line),
    patience: IMPATIENT,
    restarts: RESTARTS,
    ...change,
  });
  group.onState((state) => states.push(state));
  const ready = async (epoch: number, deadlineMs = 30_000) => {
    const startedAt = performance.now();
    await until(() => group.state.kind === "ready" && group.state.epoch === epoch, deadlineMs);
    return performance.now() - startedAt;
  };
  const pidOf = (index: number) => {
    const pid = places[index];
    assert.ok(pid !== undefined);
    return pid;
  };
  try {
    await play({ group, states, log, pids, pidOf, ready });
  } finally {
    await group.close();
    for (const pid of pids) assert.ok(!isRunning(pid));
  }
}
