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

/** With workers that are well: however busy the machine is, none of them counts as lost. */
export const PATIENT = { pingEveryMs: 50, unansweredPings: 1200, loadStallMs: 60_000, formMs: 30_000 };
/** Where workers hang: an idle one is lost after 2 s, which is long for one that is well and only waits for its turn. */
export const IMPATIENT = { ...PATIENT, unansweredPings: 40, formMs: 2000 };
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
  /** Waits until the group is ready under an epoch. */
  ready(epoch: number): Promise<void>;
}

/** How a group under test differs from one fine worker. */
export interface GroupStageOptions extends Partial<Omit<WorkerGroupOptions, "membership">> {
  /** Models of the workers, one for each. @default one fine one */
  readonly models?: readonly string[];
  /** Stands between the group and its workers. */
  readonly between?: (index: number, host: WorkerHost) => WorkerHost;
}

const SECRET = "the secret of a group under test";
/** For processes to start, on a busy machine. */
const READY_MS = 60_000;

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
    args: ["--silence-ms=60000"],
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
    patience: PATIENT,
    restarts: RESTARTS,
    ...change,
  });
  group.onState((state) => states.push(state));
  const ready = (epoch: number) => until(() => group.state.kind === "ready" && group.state.epoch === epoch, READY_MS);
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
