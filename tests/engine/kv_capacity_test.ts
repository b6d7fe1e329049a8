/** How large the KV slice becomes: as asked for, chosen, or refused with the bound. */

import assert from "node:assert/strict";

import { allocateSlice } from "../../engine/kv_capacity.ts";
import { presetNamed } from "../../engine/model/presets.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";

const fixture = gpuFixture();
const { config } = presetNamed("tiny");

Deno.test("allocateSlice() rounds up to pages, and takes no more than is of use when it may choose", async () => {
  const slices = [await allocateSlice(fixture.gpu, config, 65), await allocateSlice(fixture.gpu, config, "auto")];
  const [asked, chosen] = slices.map((slice) => slice.pages);
  for (const slice of slices) slice.close();
  assert.equal(asked, 2);
  assert.ok(chosen !== undefined && chosen >= 1 && chosen <= 16 * 64, `${chosen} pages`);
});

Deno.test("allocateSlice() refuses more than a machine without a GPU has left", async () => {
  // Only there does a slice share the memory of everything else.
  if (!fixture.gpu.info.software) return;
  // As many layers as make one that the binding would hold too large for any machine.
  const vast = { ...config, layers: 1e6 };
  await assert.rejects(allocateSlice(fixture.gpu, vast, 65536), {
    code: "kv_exhausted",
    message: /^Cannot allocate a KV slice of 65536 tokens: its 15625\.0 GiB do not fit into the \d+\.\d GiB that this/,
  });
});
