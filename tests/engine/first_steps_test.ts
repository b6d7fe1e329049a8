/** Kernels of the first steps where the provider compiles several at a time: all of them are there before a step runs. */

import assert from "node:assert/strict";

import { Engine } from "../../engine/engine.ts";
import { GREEDY, SessionHost } from "../../engine/evaluation/hand_session.ts";
import { settleMaps } from "../support/engine_fixture.ts";
import { testProvider } from "../support/test_provider.ts";

Deno.test("Engine.warmUp() compiles everything ahead of its steps, which leave what they compute to later ones", async () => {
  const engine = await Engine.open({ model: { random: "tiny" }, kvTokens: 1024, gpu: testProvider().name });
  try {
    const { gpu, gpu: { device, traits }, kernels } = engine.commands;
    Object.assign(gpu, { traits: { ...traits, compilesInParallel: true } });
    const { createComputePipeline } = device;
    const alone: string[] = [];
    device.createComputePipeline = (descriptor) => {
      alone.push(descriptor.label ?? "");
      return createComputePipeline.call(device, descriptor);
    };
    const before = kernels.size;
    await engine.warmUp();
    assert.deepEqual(alone, []);
    assert.ok(kernels.size > before + 20, `${kernels.size - before} kernels`);
    assert.deepEqual(engine.info.measured.map(({ kind }) => kind).slice(0, 3), ["prefill", "dense", "sparse"]);
    assert.ok(engine.info.measured.every(({ ms }) => ms > 0));
    // What programs and working memory are left computes as ever.
    const session = new SessionHost(engine).open({ sampling: { ...GREEDY, topLogprobs: 1 } });
    const { logprobs } = await session.prefill(Uint32Array.of(1, 2, 3));
    assert.ok((logprobs?.logprob ?? 0) < 0, "a distribution over the vocabulary");
    await session.close();
    await settleMaps(engine);
  } finally {
    await engine.close();
  }
});
