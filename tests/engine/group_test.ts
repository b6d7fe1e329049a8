import assert from "node:assert/strict";
import { Engine } from "../../engine/engine.ts";
import { SessionHost } from "../../engine/session.ts";
import type { SetShape } from "../../engine/span.ts";
import { MemoryGroup } from "../support/memory_group.ts";
import { FIXTURES } from "../support/model_directory.ts";

const MODEL = { directory: `${FIXTURES}/llama-rope3` };
const CALIBRATION = { selectLayers: [1], budget: 64, sparseFrom: 0 };

/** Slices of groups: even, uneven, and one so small that it owns few pages. */
const GROUPS = [[1024], [1024, 1024], [1024, 512], [1024, 512, 256]];

function prompt(length: number): number[] {
  return Array.from({ length }, (_, i) => 8 + (i * 37 + (i >> 3) * 11) % 500);
}

/** Log-probabilities of all tokens, and the tokens drawn, of a prompt and a few decoded rows. */
async function answer(
  host: SessionHost,
  { length, sparse, pageOffset = 0 }: {
    length: number;
    sparse?: { budget: number; heads: SetShape };
    pageOffset?: number;
  },
): Promise<{ tokens: number[]; logprobs: Float64Array[] }> {
  const sampling = { ...(await import("../../engine/session.ts")).GREEDY, topLogprobs: 512 };
  const session = host.open({ sampling, pageOffset, ...(sparse && { sparse }) });
  const tokens: number[] = [];
  const logprobs: Float64Array[] = [];
  let result = await session.prefill(prompt(length));
  for (let i = 0; i < 6; i++) {
    const row = new Float64Array(512);
    for (const { token, logprob } of result.logprobs?.top ?? []) row[token] = logprob;
    logprobs.push(row);
    tokens.push(result.token ?? -1);
    // The same tokens for every group: only the arithmetic is compared.
    result = await session.decode(prompt(length + i + 1).at(-1) ?? 0, sparse === undefined ? "dense" : "sparse");
  }
  await session.close();
  return { tokens, logprobs };
}

function largestDifference(a: readonly Float64Array[], b: readonly Float64Array[]): number {
  return Math.max(...a.flatMap((row, i) => [...row].map((value, j) => Math.abs(value - (b[i]?.[j] ?? NaN)))));
}

Deno.test("A group gives the logits of one engine: prompts of every size, dense and sparse", async (t) => {
  const one = await Engine.open({ model: MODEL, kvTokens: 1024 });
  one.calibrate(CALIBRATION);
  try {
    for (const slices of GROUPS) {
      const group = await MemoryGroup.open(MODEL, slices);
      for (const engine of group.engines) engine.calibrate(CALIBRATION);
      try {
        for (const length of [5, 130, 400]) {
          for (const heads of [undefined, "kv_head", "query_head", "all_heads"] as const) {
            if (heads !== undefined && length < 100) continue;
            const sparse = heads && { budget: 64, heads };
            for (const pageOffset of slices.length > 1 ? [0, 1] : [0]) {
              const name = `${slices.join("+")} tokens, prompt of ${length}, ${heads ?? "dense"}, offset ${pageOffset}`;
              await t.step(name, async () => {
                const request = { length, ...(sparse && { sparse }), pageOffset };
                const expected = await answer(new SessionHost(one), { ...request, pageOffset: 0 });
                const given = await answer(new SessionHost(group, group.map), request);
                assert.ok(largestDifference(given.logprobs, expected.logprobs) < 0.02);
                assert.deepEqual(given.tokens, expected.tokens);
              });
            }
          }
        }
      } finally {
        await group.close();
      }
    }
  } finally {
    await one.close();
  }
});
