/** How large the KV slice becomes: as asked for, chosen, or refused with the bound. */

import assert from "node:assert/strict";

import { allocateSlice } from "../../../engine/kv/kv_capacity.ts";
import { presetNamed } from "../../../engine/model/presets.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";

const fixture = gpuFixture();
const { config } = presetNamed("tiny");

Deno.test("allocateSlice() rounds up to pages, and takes no more than it can use when it may choose", async () => {
  const slices = [
    await allocateSlice(fixture.gpu, config, { kvTokens: 65 }),
    await allocateSlice(fixture.gpu, config, { kvTokens: "auto" }),
  ];
  const [asked, chosen] = slices.map((slice) => slice.pages);
  for (const slice of slices) slice.close();
  assert.equal(asked, 2);
  assert.ok(chosen !== undefined && chosen >= 1 && chosen <= 16 * 64, `${chosen} pages`);
});

Deno.test("allocateSlice() keeps room for replicas beside the pages of a worker that has peers", async () => {
  const slices = [
    await allocateSlice(fixture.gpu, config, { kvTokens: 640, replicas: true }),
    await allocateSlice(fixture.gpu, config, { kvTokens: "auto", replicas: true }),
    await allocateSlice(fixture.gpu, config, { kvTokens: "auto" }),
  ];
  const [asked, chosen, alone] = slices.map(({ pages, replicaPages }) => [pages, replicaPages] as const);
  for (const slice of slices) slice.close();
  assert.deepEqual(asked, [10, 64]);
  assert.equal(alone?.[1], 0);
  assert.ok((chosen?.[0] ?? 0) + (chosen?.[1] ?? 0) <= (alone?.[0] ?? 0), `${chosen} pages, alone ${alone}`);
});

Deno.test("allocateSlice() gives copies of everything as much as the others hold, where that is asked for", async () => {
  const choice = { replicas: true, copies: "whole", groupWorkers: 3 } as const;
  const slices = [
    await allocateSlice(fixture.gpu, config, { ...choice, kvTokens: 6400 }),
    await allocateSlice(fixture.gpu, config, { ...choice, kvTokens: "auto" }),
  ];
  const [asked, chosen] = slices.map(({ pages, replicaPages }) => [pages, replicaPages] as const);
  for (const slice of slices) slice.close();
  assert.deepEqual(asked, [100, 200]);
  assert.ok((chosen?.[0] ?? 0) * 2 <= (chosen?.[1] ?? 0), `${chosen} pages`);
});

Deno.test("allocateSlice() shares the memory of a machine without a GPU with the other workers there", async () => {
  if (!fixture.gpu.info.software) return;
  const alone = await allocateSlice(fixture.gpu, config, { kvTokens: "auto" });
  const crowded = await allocateSlice(fixture.gpu, config, { kvTokens: "auto", workersOnHost: 1e9 });
  const pages = [alone.pages, crowded.pages];
  for (const slice of [alone, crowded]) slice.close();
  // Four full contexts of 64 pages take 12 MiB: any machine has four times that left.
  assert.deepEqual(pages, [4 * 64, 1]);
});

Deno.test("allocateSlice() refuses more than a machine without a GPU has left", async () => {
  // Only there does a slice share the memory of everything else.
  if (!fixture.gpu.info.software) return;
  // As many layers as make one that the binding would hold too large for any machine.
  const vast = { ...config, layers: 1e6 };
  await assert.rejects(allocateSlice(fixture.gpu, vast, { kvTokens: 65536 }), {
    code: "kv_exhausted",
    message: /^Cannot allocate a KV slice of 65536 tokens: its 15625\.0 GiB do not fit into the \d+\.\d GiB that this/,
  });
});
