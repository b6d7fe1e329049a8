/** What happens to a group over several hosts, one thing after another, each with the times that it took. */

import type { Found, Scene } from "./scene.ts";

/** Workers of the group before each of them. */
export const WORKERS = 3;

const PARTITION_MS = 15_000;
const NATS_AWAY_MS = 8000;
const SLOWNESS = { delayMs: 10, lossPercent: 1 };
const UNDISTURBED_MS = 6000;

/** How long it took. */
export interface FaultTimes {
  /** Until requests were taken again; undefined when they always were. */
  readonly servingMs?: number;
  /** Until all workers were there again; undefined when they always were. */
  readonly wholeMs?: number;
  /** What else is worth saying. */
  readonly note?: string;
}

/** One thing that happens. */
export interface Fault {
  readonly what: string;
  /** The way to find workers that has it; undefined: all. */
  readonly only?: Found;
  /** @throws {Error} when something other than this came of it */
  play(scene: Scene): Promise<FaultTimes>;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function killOne(scene: Scene, worker: number): Promise<FaultTimes> {
  const epoch = await scene.epoch();
  scene.kill(worker, "SIGKILL");
  const servingMs = await scene.until((ready) => (ready.epoch ?? 0) > epoch);
  return { servingMs, wholeMs: servingMs + await scene.whole(WORKERS, epoch) };
}

async function cutOff(scene: Scene, worker: number): Promise<FaultTimes> {
  const epoch = await scene.epoch();
  const startedMs = performance.now();
  await scene.link(worker, "down");
  const servingMs = await scene.until((ready) => (ready.epoch ?? 0) > epoch);
  await pause(Math.max(0, PARTITION_MS - (performance.now() - startedMs)));
  await scene.link(worker, "up");
  return { servingMs, wholeMs: await scene.whole(WORKERS, epoch) };
}

async function restartAll(scene: Scene): Promise<FaultTimes> {
  const startedMs = performance.now();
  for (let worker = 0; worker < WORKERS; worker++) {
    const epoch = await scene.epoch();
    scene.kill(worker, "SIGTERM");
    // It leaves, which is one epoch, and is back, which is another.
    await scene.whole(WORKERS, epoch + 1);
  }
  return { wholeMs: performance.now() - startedMs };
}

/** One more than there are, and drained for good. */
async function growAndShrink(scene: Scene): Promise<FaultTimes> {
  const before = await scene.capacity();
  await scene.addWorker();
  const joinedMs = await scene.whole(WORKERS + 1);
  const grown = await scene.capacity();
  if (grown <= before) throw new Error(`Cannot hold more with one more worker: ${before} tokens, then ${grown}`);
  const drainedMs = await scene.removeWorker() + await scene.whole(WORKERS);
  const shrunk = await scene.capacity();
  if (shrunk !== before) throw new Error(`Cannot hold ${before} tokens again: ${shrunk}`);
  const note = `context ${before}, ${grown} ${joinedMs.toFixed(0)} ms later, ${shrunk} again ${
    drainedMs.toFixed(0)
  } ms after SIGTERM`;
  return { note };
}

async function restartNats(scene: Scene): Promise<FaultTimes> {
  const epoch = await scene.epoch();
  await scene.stopNats();
  await pause(NATS_AWAY_MS);
  scene.startNats();
  await pause(NATS_AWAY_MS);
  if (await scene.epoch() !== epoch) {
    throw new Error("Cannot go on: the group was formed again although nothing was wrong with it");
  }
  return {};
}

async function slowLink(scene: Scene, play: () => Promise<FaultTimes>): Promise<FaultTimes> {
  const before = await scene.roundTripMs(0);
  await using slow = await scene.slow(0, SLOWNESS);
  const after = await scene.roundTripMs(0);
  const note = `by ${slow.by}: round trip ${before.toFixed(1)} ms, then ${after.toFixed(1)} ms`;
  return { ...await play(), note };
}

/** In this order. */
export const FAULTS: readonly Fault[] = [
  { what: "none", play: () => pause(UNDISTURBED_MS).then(() => ({})) },
  { what: "a worker is killed, and started again", play: (scene) => killOne(scene, 1) },
  { what: `a worker is cut off for ${PARTITION_MS / 1000} s`, play: (scene) => cutOff(scene, 2) },
  { what: "rolling restart of all workers", play: restartAll },
  { what: "a fourth worker joins, and is drained", play: growAndShrink },
  {
    what: `NATS is away for ${NATS_AWAY_MS / 1000} s and has lost all it stored`,
    only: "nats",
    play: restartNats,
  },
  {
    what: `a worker's link takes ${SLOWNESS.delayMs} ms each way and loses ${SLOWNESS.lossPercent} %`,
    play: (scene) => slowLink(scene, () => pause(UNDISTURBED_MS).then(() => ({}))),
  },
  {
    what: "the same, and another worker is killed, and started again",
    play: (scene) => slowLink(scene, () => killOne(scene, 1)),
  },
];
