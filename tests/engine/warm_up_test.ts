/** Which steps warm a worker up. What they compile: `engine_test.ts`. */

import assert from "node:assert/strict";

import type { EngineInfo } from "../../engine/engine_info.ts";
import type { SessionRunner } from "../../engine/evaluation/hand_session.ts";
import type { Step, StepResult } from "../../engine/span.ts";
import { PageMap } from "../../engine/page_map.ts";
import { warmUp } from "../../engine/warm_up.ts";
import { fakeModel } from "../support/fake_model.ts";

const INFO: EngineInfo = fakeModel({
  maxPositions: 8192,
  vocabSize: 512,
  roles: ["dense", "select", "sparse", "sparse"],
  selectLayers: [1],
  sparse: { budget: 64, sparseFrom: 128 },
  software: false,
  cheapCorrections: 0,
  kvPages: 128,
});

/** Steps of more rows are answered at once: it is the short ones that decide how long the long one is. */
const SHORT_ROWS = 100;

/** Runs with a clock that only recorded steps move: how busy this machine is must not show. */
async function byTheClockOfSteps(test: () => Promise<void>): Promise<void> {
  const { now } = performance;
  clockMs = 0;
  performance.now = () => clockMs;
  try {
    await test();
  } finally {
    performance.now = now;
  }
}

let clockMs = 0;

/** Answers every span with a token, and remembers the steps. */
class Recorder implements SessionRunner {
  readonly info: EngineInfo;
  readonly steps: Step[] = [];
  readonly #rowMs: number;

  constructor(info: Partial<EngineInfo>, rowMs = 0) {
    this.info = { ...INFO, ...info };
    this.#rowMs = rowMs;
  }

  run(step: Step): Promise<StepResult> {
    this.steps.push(step);
    const rows = step.spans.reduce((sum, { tokens }) => sum + tokens.length, 0);
    clockMs += rows > SHORT_ROWS ? 0 : rows * this.#rowMs;
    return Promise.resolve({
      index: step.index,
      spans: step.spans.map(({ sequence }) => ({ sequence, token: 1 })),
      timing: { encodeMs: 0, waitMs: 0, totalMs: 0 },
    });
  }

  get longest(): number {
    return Math.max(...this.steps.flatMap(({ spans }) => spans.map(({ tokens }) => tokens.length)));
  }
}

Deno.test("warmUp() ends with the longest batch of a prompt and rows after it, where the adapter is a GPU", () =>
  byTheClockOfSteps(async () => {
    const gpu = new Recorder({});
    const measured = await warmUp(gpu);
    assert.equal(gpu.longest, 2048);
    // The long prompt is not among what predictions start from: most of it may have been compiling.
    assert.ok(measured.every(({ rows }) => rows < 100));
    const tall = gpu.steps.flatMap(({ spans }) => spans).filter(({ kind, tokens }) =>
      kind === "decode" && tokens.length > 8
    );
    assert.deepEqual(tall.map(({ tokens, from }) => [tokens.length, from]), [[64, 1984], [32, 2016], [16, 2032]]);
    const prompts = gpu.steps.flatMap(({ spans }) => spans).filter(({ kind, tokens }) =>
      kind === "prefill" && tokens.length > 100
    );
    assert.deepEqual(prompts.map(({ tokens }) => tokens.length), [512, 512, 2048]);
    const after = gpu.steps.flatMap(({ spans }) => spans).slice(-2);
    assert.deepEqual(after.map((span) => [span.kind === "decode" && span.attention, span.from]), [
      ["dense", 2048],
      ["sparse", 2049],
    ]);
    const open = new Set<number>();
    for (const step of gpu.steps) {
      for (const { sequence } of step.open) open.add(sequence);
      for (const sequence of step.release) open.delete(sequence);
    }
    assert.equal(open.size, 0);
  }));

Deno.test("warmUp() stays short on software adapters and within small caches", () =>
  byTheClockOfSteps(async () => {
    const gpu = new Recorder({});
    await warmUp(gpu);
    const software = new Recorder({ software: true });
    await warmUp(software);
    assert.ok(software.longest < 100);
    const sampled = ({ steps }: Recorder) =>
      steps.flatMap(({ open }) => open).filter(({ sampling }) => sampling.temperature > 0).length;
    assert.deepEqual([sampled(software), sampled(gpu)].map((count) => count > 0), [false, true]);
    const group = new Recorder({ software: true });
    await warmUp(group, new PageMap([64, 64]));
    assert.equal(group.steps.length, software.steps.length / 2, "each of its workers has measured itself");
    const small = new Recorder({ kvPages: 8 });
    await warmUp(small);
    assert.equal(small.longest, 7 * 64);
  }));

Deno.test("warmUp() tries fewer rows where 2,048 would take long", () =>
  byTheClockOfSteps(async () => {
    // 24 rows take at least 144 ms: 512 would take three seconds, of which two are too many.
    const slow = new Recorder({ roles: undefined }, 6);
    await warmUp(slow);
    assert.ok(slow.longest <= 334, `${slow.longest} rows`);
  }));
