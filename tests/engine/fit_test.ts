/** What a model needs before it is read, against what it takes once it is; and the error when it cannot be. */

import assert from "node:assert/strict";

import { Engine } from "../../engine/engine.ts";
import { checkFit, needsOf } from "../../engine/fit.ts";
import { openTensors } from "../../engine/model/checkpoint.ts";
import { readModelConfig } from "../../engine/model/model_config.ts";
import { presetNamed } from "../../engine/model/presets.ts";
import { loadWeights } from "../../engine/model/weights.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";
import { FIXTURES } from "../support/model_directory.ts";
import { testProvider } from "../support/test_provider.ts";

const fixture = gpuFixture();

for (
  const [model, quantize] of [
    ["gguf/tiny-llama-k-Q4_K_M.gguf", undefined],
    ["qwen2", undefined],
    ["qwen2", "q8"],
    ["qwen2", "q4"],
  ] as const
) {
  Deno.test(`needsOf() foresees the bytes of ${model}${quantize === undefined ? "" : ` in ${quantize}`}`, async () => {
    const path = `${FIXTURES}${model}`;
    const config = await readModelConfig(path);
    using files = await openTensors(path);
    const { weightBytes } = needsOf({ config, tensors: files.tensors, quantize });
    const before = fixture.gpu.allocatedBytes;
    await loadWeights(fixture.commands, config, { files, quantize, onProgress: () => {} });
    const taken = fixture.gpu.allocatedBytes - before;
    // Planes and small vectors are padded.
    assert.ok(taken >= weightBytes && taken <= weightBytes * 1.01 + 2048, `${taken} bytes, foreseen ${weightBytes}`);
  });
}

Deno.test("needsOf() knows the bytes of random weights by their format", () => {
  const { config } = presetNamed("llama-3-8b");
  const gib = (quantize?: "q8" | "q4") => needsOf({ config, tensors: undefined, quantize }).weightBytes / 2 ** 30;
  assert.deepEqual([gib(), gib("q8"), gib("q4")].map((bytes) => bytes.toFixed(1)), ["15.0", "7.9", "4.7"]);
  assert.deepEqual(needsOf({ config, tensors: undefined, quantize: "q4" }).weightTypes, ["q4", "q8"]);
  const working = (quantize?: "q8" | "q4") => needsOf({ config, tensors: undefined, quantize }).workingBytes;
  // Gate and up, decoded to halves.
  assert.deepEqual([working("q8"), working("q4")].map((bytes) => bytes - working()), Array(2).fill(28672 * 4096 * 2));
});

Deno.test("checkFit() says in one error what would fit", async () => {
  if (!fixture.gpu.info.software) return;
  const { config } = presetNamed("tiny");
  // Sixteen thousand times as wide a vocabulary: tables of terabytes.
  const vast = { ...config, vocabSize: 2 ** 33 };
  await assert.rejects(
    checkFit(fixture.gpu, { config: vast, tensors: undefined, quantize: undefined }, { kvTokens: "auto" }),
    {
      code: "out_of_gpu_memory",
      message:
        /^Cannot load the model: weights of 4096\.0 GiB, working memory of .* and 64 tokens of .* exceed the .* that are free: a smaller model, or a GPU with more memory, is needed$/,
    },
  );
  const available = Deno.systemMemoryInfo().available;
  const deep = { ...config, layers: 1024, maxPositions: 1 << 28 };
  const tokens = Math.floor(
    1.5 * available / needsOf({ config: deep, tensors: undefined, quantize: undefined }).kvBytesPerToken / 64,
  ) * 64;
  await assert.rejects(
    checkFit(fixture.gpu, { config: deep, tensors: undefined, quantize: undefined }, { kvTokens: tokens }),
    {
      code: "out_of_gpu_memory",
      message: /: --kv-tokens \d+ would fit; [23] workers with a GPU each would hold \d+ together/,
    },
  );
});

Deno.test("checkFit() refuses a context that a worker alone cannot hold, and leaves it to a group of several", async () => {
  if (!fixture.gpu.info.software) return;
  const { config } = presetNamed("tiny");
  const deep = { ...config, layers: 1024, maxPositions: 1 << 28 };
  const unread = { config: deep, tensors: undefined, quantize: undefined };
  const contextTokens = Math.floor(1.5 * Deno.systemMemoryInfo().available / needsOf(unread).kvBytesPerToken);
  await assert.rejects(checkFit(fixture.gpu, { ...unread, contextTokens }, { kvTokens: "auto" }), {
    code: "out_of_gpu_memory",
    message: /: --context \d+ would fit; [23] workers with a GPU each would hold \d+ together/,
  });
  const lines = await checkFit(fixture.gpu, { ...unread, contextTokens }, { kvTokens: "auto", replicas: true });
  assert.match(lines[1] ?? "", /a context of [\d,]+ tokens fits$/);
});

Deno.test("checkFit() offers fewer tokens with quantised weights where neither is enough", async () => {
  if (!fixture.gpu.info.software) return;
  const { config } = presetNamed("tiny");
  const available = Deno.systemMemoryInfo().available;
  // Tables of 16 bits beyond the memory, of 8 bits within it, beside 1.5 times of it in keys and values.
  const vast = { ...config, vocabSize: Math.floor(1.4 * available / (2 * 2 * config.hidden)), layers: 1024 };
  const model = { config: { ...vast, maxPositions: 1 << 28 }, tensors: undefined, quantize: undefined };
  const tokens = Math.floor(1.5 * available / needsOf(model).kvBytesPerToken / 64) * 64;
  await assert.rejects(checkFit(fixture.gpu, model, { kvTokens: tokens }), {
    code: "out_of_gpu_memory",
    message: /are free: --quantize q8 with --kv-tokens \d+ would fit; --quantize q4 with --kv-tokens \d+ would fit$/,
  });
});

Deno.test("Engine.open() refuses a context beyond the model's, and says what it needs otherwise", async () => {
  const lines: string[] = [];
  const open = (contextTokens: number) =>
    Engine.open({
      model: { random: "tiny", contextTokens },
      kvTokens: 128,
      gpu: testProvider().name,
      log: (line) => lines.push(line),
    });
  await assert.rejects(open(5000), {
    code: "unsupported_model",
    message: "Cannot serve a context of 5000 tokens: the model was made for 4096",
  });
  const engine = await open(512);
  assert.equal(engine.info.maxPositions, 512);
  assert.ok(
    lines.some((line) =>
      /^Memory: weights 1\.1 MiB in f16, working memory .*, keys and values 1 KiB a token$/.test(line)
    ),
    lines.join("\n"),
  );
  await engine.close();
});

Deno.test("checkFit() counts the pages for copies of other workers' rows", async () => {
  if (!fixture.gpu.info.software) return;
  const { config } = presetNamed("tiny");
  const unread = (layers: number) => ({ config: { ...config, layers }, tensors: undefined, quantize: undefined });
  const [one, two] = [needsOf(unread(1)), needsOf(unread(2))];
  // So deep that 10 pages and the weights take less than half of the memory: 64 more pages take more than all of it.
  const perLayer = two.weightBytes - one.weightBytes + 640 * one.kvBytesPerToken;
  const model = unread(Math.floor(0.45 * Deno.systemMemoryInfo().available / perLayer));
  await checkFit(fixture.gpu, model, { kvTokens: 640 });
  await assert.rejects(checkFit(fixture.gpu, model, { kvTokens: 640, replicas: true }), {
    code: "out_of_gpu_memory",
    message: /copies of others' rows included, exceed/,
  });
  const [needs] = await checkFit(fixture.gpu, unread(1024), { kvTokens: 640, replicas: true });
  const copies = 64 * 64 * 1024 * one.kvBytesPerToken / 2 ** 30;
  assert.ok(needs?.endsWith(`copies of other workers' rows at least ${copies.toFixed(1)} GiB`), needs);
});
