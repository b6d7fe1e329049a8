/**
 * A slow and lossy cable between two virtual cards, where the kernel has no netem: `slow_cable.ts CARD CARD DELAY_MS
 * LOSS_PERCENT SEED`. Both directions are alike. Prints a line once the cards are there; they go with the process.
 */

import { SlowQueue } from "./slow_queue.ts";
import { TapDevice, waitForFrames } from "./tap_device.ts";

const IDLE_MS = 1000;

const [near = "", far = "", delayMs, lossPercent, seed] = Deno.args;
const slowness = { delayMs: Number(delayMs), lossPercent: Number(lossPercent) };
const taps = [new TapDevice(near), new TapDevice(far)] as const;
const [from, to] = taps;
const directions = [
  { from, to, queue: new SlowQueue(slowness, Number(seed)) },
  { from: to, to: from, queue: new SlowQueue(slowness, Number(seed) + 1) },
];
await Deno.stdout.write(new TextEncoder().encode("the cards are there\n"));

// One thread that blocks: nothing else is to be done here, and a timer of the event loop would add to the delay.
for (;;) {
  const nowMs = performance.now();
  for (const { from, to, queue } of directions) {
    for (let frame = from.read(); frame !== undefined; frame = from.read()) queue.push(frame, nowMs);
    for (let frame = queue.pop(nowMs); frame !== undefined; frame = queue.pop(nowMs)) to.write(frame);
  }
  const due = directions.map(({ queue }) => queue.nextMs ?? nowMs + IDLE_MS);
  waitForFrames(taps, Math.max(0, Math.min(...due) - performance.now()));
}
