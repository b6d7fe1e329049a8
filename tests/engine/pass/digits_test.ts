/** Rows of quantised models on their way through a layer: what makes them writes the digits that products read. */

import assert from "node:assert/strict";
import type { Commands } from "../../../kernels/pipeline.ts";
import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import { engineFixture, withSession } from "../../support/engine_fixture.ts";

const fixture = engineFixture({ random: "tiny", quantize: "q4" }, 1024);

/** Kernels by the first word of their names. */
function countKernels(commands: Commands): Map<string, number> {
  const counts = new Map<string, number>();
  const dispatch = commands.dispatch.bind(commands);
  commands.dispatch = (kernel, given) => {
    const [name = ""] = kernel.name.split(/[ _]/);
    counts.set(name, (counts.get(name) ?? 0) + 1);
    dispatch(kernel, given);
  };
  return counts;
}

Deno.test("a decode row of a model in q4 takes eight dispatches a layer on GPUs, none of them for digits alone", async () => {
  const { engine: { commands }, host } = fixture;
  // As on GPUs, which multiply as integers; subgroups are there on every adapter that this is tested with.
  Object.defineProperty(commands.gpu, "info", { value: { ...commands.gpu.info, software: false } });
  await withSession(host, { sampling: GREEDY }, async (session) => {
    await session.prefill(Uint32Array.of(1, 2, 3));
    const counts = countKernels(commands);
    await session.run({ kind: "decode", attention: "dense", tokens: Uint32Array.of(4), logits: "last" });
    const layers = [["rms", 2], ["subgroup", 4], ["attention", 1], ["merge", 1]] as const;
    const head = ["embed", "rms", "subgroup", "sample"];
    for (const name of head) counts.set(name, (counts.get(name) ?? 0) - 1);
    const expected = layers.map(([name, count]) => [name, 3 * count]);
    assert.deepEqual([...counts].filter(([, count]) => count > 0).sort(), expected.sort());
  });
});
