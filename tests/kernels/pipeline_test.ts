/** Parameters, lists and late data reach a kernel as they were given, and what does not fit is refused. */

import assert from "node:assert/strict";

import type { KernelSpec } from "../../kernels/pipeline.ts";
import { Scratch } from "../../kernels/scratch.ts";
import { writes } from "../../kernels/wgsl.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";

const fixture = gpuFixture();

/** A kernel that writes the sum of its parameters, and its list after it. */
function listing(scalars: number, listWords: number): KernelSpec {
  const names = Array.from({ length: scalars }, (_, i) => `scalar${i}`);
  return {
    bindings: [writes("out", "array<u32>")],
    params: names.map((name) => [name, "u32"] as const),
    listWords,
    source: `
      @compute @workgroup_size(${listWords}) fn main(@builtin(local_invocation_index) t: u32) {
        if (t == 0u) { out[0] = ${names.map((name) => `params.${name}`).join(" + ")}; }
        out[t + 1u] = params.list[t / 4u][t % 4u];
      }`,
  };
}

Deno.test("Commands.dispatch() hands over a list after any number of parameters", async () => {
  const { commands } = fixture;
  for (const scalars of [1, 3, 4, 5]) {
    const out = fixture.zeros("u32", [9]);
    const params = Object.fromEntries(Array.from({ length: scalars }, (_, i) => [`scalar${i}`, 10 ** i]));
    const list = [7, 6, 5, 4, 3, 2, 1, 0xffffffff];
    const kernel = commands.kernel(`listing ${scalars}`, () => listing(scalars, 8));
    commands.dispatch(kernel, { tensors: [out], params, list, groups: [1, 1, 1] });
    assert.deepEqual([...await fixture.words(out)], [Number("1".repeat(scalars)), ...list], `${scalars} parameters`);
  }
});

Deno.test("Commands.dispatch() refuses a list that is too long, Commands.kernel() one that does not fit", () => {
  const { commands } = fixture;
  const kernel = commands.kernel("listing", () => listing(1, 4));
  const dispatch = { tensors: [fixture.zeros("u32", [5])], params: { scalar0: 1 }, groups: [1, 1, 1] } as const;
  assert.throws(
    () => commands.dispatch(kernel, { ...dispatch, list: [1, 2, 3, 4, 5] }),
    /Cannot dispatch listing: a list of 5 words exceeds 4/,
  );
  assert.throws(
    () => commands.kernel("too long", () => listing(1, 64)),
    /Cannot compile too long: 68 parameter words exceed 64/,
  );
});

Deno.test("Commands.deliver() comes before what was recorded since expect(), which nothing submits meanwhile", async () => {
  const { commands } = fixture;
  const [from, to] = [fixture.zeros("u32", [1]), fixture.zeros("u32", [1])];
  const scratch = new Scratch(commands);
  const small = scratch.take("grows", "u32", [1]);
  commands.write(from, Uint32Array.of(1));
  commands.expect();
  commands.copy(from, small, { byteLength: 4 });
  commands.copy(small, to, { byteLength: 4 });
  // The buffer that it replaces is in use until the copies have run.
  scratch.take("grows", "u32", [4096]);
  commands.deliver(from, Uint32Array.of(2));
  commands.delivered();
  assert.deepEqual([...await fixture.words(to)], [2]);

  commands.expect();
  commands.copy(from, to, { byteLength: 4 });
  assert.throws(() => commands.submit(), /Cannot submit: what was recorded waits for data/);
  commands.delivered();
  scratch.close();
});
