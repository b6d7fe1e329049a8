/** Steps whose memory could not be had: those after them get their own. */

import assert from "node:assert/strict";
import { Engine } from "../../engine/engine.ts";
import { GREEDY, SessionHost } from "../../engine/evaluation/hand_session.ts";
import { mapsSettled } from "../support/engine_fixture.ts";
import { testProvider } from "../support/test_provider.ts";

/** Runs `body` while the device has no memory for buffers of that name: as it does then, it gives one that nothing can use. */
async function withoutBuffer(name: string, body: () => Promise<void>): Promise<void> {
  const { createBuffer } = GPUDevice.prototype;
  GPUDevice.prototype.createBuffer = function (descriptor) {
    const unusable = GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE;
    return createBuffer.call(this, descriptor.label === name ? { ...descriptor, usage: unusable } : descriptor);
  };
  try {
    await body();
  } finally {
    GPUDevice.prototype.createBuffer = createBuffer;
  }
}

for (const name of ["counts of tokens", "logits of drafts", "drawn tokens"]) {
  Deno.test(`Engine.run() goes on after a step that had no memory for ${name}`, async () => {
    const engine = await Engine.open({ model: { random: "tiny" }, kvTokens: 64, gpu: testProvider().name });
    try {
      const sampling = { ...GREEDY, repetitionPenalty: 1.5 };
      const session = new SessionHost(engine).open({ sampling, audited: true });
      await session.prefill(Uint32Array.from({ length: 40 }, (_, i) => i), "none");
      const row = { kind: "decode", from: 40, tokens: Uint32Array.of(3) } as const;
      const sparse = { ...row, attention: "sparse", logits: "last" } as const;
      await withoutBuffer(name, () => assert.rejects(session.run(sparse), { name: "GpuError" }));
      const { token } = await session.run(sparse);
      const { audit } = await session.run({ ...row, attention: "dense", logits: "audit" });
      assert.equal(audit?.tokens[0], token);
      assert.ok((audit?.divergences[0] ?? NaN) >= 0);
    } finally {
      await engine.close();
      await mapsSettled();
    }
  });
}
