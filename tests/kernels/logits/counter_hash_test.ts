import assert from "node:assert/strict";
import { MIX, mix } from "../../../kernels/logits/counter_hash.ts";
import { reads, writes } from "../../../kernels/wgsl.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";

const fixture = gpuFixture();

Deno.test("mix() is the same on the GPU and on the host, and a permutation as far as one looks", async () => {
  const counters = Uint32Array.from({ length: 4096 }, (_, i) => i < 2048 ? i : 2 ** 32 - i * i);
  const out = fixture.zeros("u32", [counters.length]);
  const kernel = fixture.commands.kernel("mix", () => ({
    bindings: [reads("counters", "array<u32>"), writes("out", "array<u32>")],
    params: [["count", "u32"]],
    source: `${MIX}
      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        if (id.x < params.count) { out[id.x] = mix(counters[id.x]); }
      }`,
  }));
  fixture.commands.dispatch(kernel, {
    tensors: [fixture.upload("u32", counters, [counters.length]), out],
    params: { count: counters.length },
    groups: [64, 1, 1],
  });
  const mixed = await fixture.words(out);
  assert.deepEqual([...mixed], Array.from(counters, mix));
  assert.equal(new Set(mixed).size, new Set(counters).size);
});
