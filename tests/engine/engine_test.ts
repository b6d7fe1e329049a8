/** The engine's door: refused steps leave no trace, failed ones no damage, faulty models no device. */

import assert from "node:assert/strict";

import { Engine } from "../../engine/engine.ts";
import { SLOTS } from "../../engine/kv/kv_slice.ts";
import { GREEDY, SessionHost } from "../../engine/evaluation/hand_session.ts";
import type { SequenceOpening, Step } from "../../engine/span.ts";
import { engineFixture, everyLogprob, logprobsOf, mapsSettled } from "../support/engine_fixture.ts";
import { FIXTURES, readFixture, withChangedFixture } from "../support/model_directory.ts";
import { decode, open, prefill, step } from "../support/step_parts.ts";
import { testProvider } from "../support/test_provider.ts";

const fixture = engineFixture({ random: "tiny" }, 640);
const run = (parts: Partial<Step>) => fixture.engine.run(step(parts));
const pages = (...numbers: number[]) => Uint32Array.from(numbers);
const every = (sequence: number, changes: Partial<SequenceOpening> = {}) =>
  open(sequence, { sampling: everyLogprob(512), ...changes });

/** Opens sequence 1 with 60 positions in page 4. */
function openOne(): Promise<unknown> {
  return run({ open: [every(1)], spans: [prefill(1, 0, 60, { newPages: pages(4) })] });
}

/** Its next logits; changes nothing that matters. */
async function peek(): Promise<Float64Array> {
  return logprobsOf((await run({ spans: [decode(1, 60, 1, { logits: "last" })] })).spans[0]);
}

Deno.test("Engine.run() changes nothing when a later part of the step is refused", async () => {
  await openOne();
  const expected = await peek();
  const fault = prefill(9, 0, 1);
  const refused: readonly Partial<Step>[] = [
    { release: [1], spans: [fault] },
    { open: [every(2)], spans: [fault] },
    { open: [every(2)], spans: [prefill(2, 0, 3, { newPages: pages(5) }), fault] },
    // Would write other tokens, and a page after the first.
    { spans: [prefill(1, 60, 30, { newPages: pages(6) }), fault] },
    { spans: [prefill(1, 3, 2, { tokens: pages(99, 98) }), fault] },
    { open: [every(2, { prefixPages: pages(0, 77) })] },
  ];
  for (const parts of refused) {
    await assert.rejects(run(parts), { name: "EngineError", code: "invalid_step" });
    assert.deepEqual(await peek(), expected);
    await assert.rejects(run({ release: [2] }), /sequence 2: it is not open$/);
    await assert.rejects(run({ spans: [prefill(1, 61, 30)] }), /its end 91 exceeds the 64 positions of its pages$/);
  }
  await run({ release: [1] });
});

Deno.test("Engine.run() refuses an empty step's contradictions with a code, and runs an empty step", async () => {
  const { spans } = await run({});
  assert.deepEqual(spans, []);
  await assert.rejects(run({ spans: [prefill(1, 0, 1)] }), { code: "invalid_step", message: /1: it is not open$/ });
  await assert.rejects(run({ spans: [prefill(1, 0, 0)] }), { code: "invalid_step" });
});

Deno.test("Engine.run() gives a released sequence's slot to another, with nothing of it left", async () => {
  await openOne();
  const expected = await peek();
  await run({ release: [1] });
  const others = Array.from({ length: SLOTS }, (_, i) => 1000 + i);
  await run({ open: others.map((sequence) => every(sequence, { prefixPages: pages(1, 2, 3) })) });
  await assert.rejects(openOne(), { code: "kv_exhausted", message: `Cannot open 1 sequences: 257 exceed ${SLOTS}` });
  await run({ release: others });
  await openOne();
  assert.deepEqual(await peek(), expected);
  await run({ release: [1] });
});

Deno.test("Engine.run() shares the pages of a prefix, and penalises its tokens", async () => {
  await openOne();
  await run({ spans: [prefill(1, 60, 4)] });
  const behind = (sequence: number, page: number) =>
    prefill(sequence, 64, 2, { logits: "last", newPages: pages(page) });
  const own = await run({ spans: [behind(1, 7)] });
  const prefixPages = pages(4);
  const shared = await run({ open: [every(2, { prefixPages })], spans: [behind(2, 8)] });
  assert.deepEqual(logprobsOf(shared.spans[0]), logprobsOf(own.spans[0]));
  const best = shared.spans[0]?.token ?? NaN;
  assert.ok(best > 2);
  const sampling = { ...GREEDY, repetitionPenalty: 1e6 };
  for (const [sequence, prefixTokens] of [[3, new Uint32Array(0)], [4, new Uint32Array(64).fill(best)]] as const) {
    const { spans } = await run({
      open: [open(sequence, { prefixPages, prefixTokens, sampling })],
      spans: [behind(sequence, 9)],
    });
    assert.equal(spans[0]?.token === best, prefixTokens.length === 0);
    await run({ release: [sequence] });
  }
  await run({ release: [1, 2] });
});

/** Runs `body` while the next submit fails. */
async function losingSubmit(body: () => Promise<void>): Promise<void> {
  const { submit } = GPUQueue.prototype;
  GPUQueue.prototype.submit = () => {
    GPUQueue.prototype.submit = submit;
    throw new TypeError("lost on the way");
  };
  try {
    await body();
  } finally {
    GPUQueue.prototype.submit = submit;
  }
}

/** Runs `body` while the device says that it has no memory left, once. */
async function withoutMemory(body: () => Promise<void>): Promise<void> {
  const { popErrorScope } = GPUDevice.prototype;
  GPUDevice.prototype.popErrorScope = async function () {
    GPUDevice.prototype.popErrorScope = popErrorScope;
    await popErrorScope.apply(this);
    return new GPUOutOfMemoryError("nothing left");
  };
  try {
    await body();
  } finally {
    GPUDevice.prototype.popErrorScope = popErrorScope;
  }
}

for (const [fault, message] of [[losingSubmit, /lost on the way/], [withoutMemory, /nothing left/]] as const) {
  Deno.test(`Engine.run() goes on after a step that failed on the GPU: ${fault.name}`, async () => {
    await openOne();
    const expected = await peek();
    const failing = {
      open: [every(2)],
      spans: [prefill(2, 0, 5, { newPages: pages(5) }), prefill(1, 60, 9, { newPages: pages(6) })],
    };
    await fault(() => assert.rejects(run(failing), message));
    await assert.rejects(run({ release: [2] }), /sequence 2: it is not open$/);
    await assert.rejects(run({ spans: [prefill(1, 60, 9)] }), /its end 69 exceeds the 64 positions of its pages$/);
    assert.deepEqual(await peek(), expected);
    await run({ release: [1] });
  });

  Deno.test(`Engine.run() counts tokens for penalties again after a step that failed: ${fault.name}`, async () => {
    const sampling = { ...GREEDY, repetitionPenalty: 1e6 };
    const prompt = prefill(3, 0, 5, { newPages: pages(5), logits: "last" });
    const { spans: [first] } = await run({ open: [open(3, { promptTokens: 5, sampling })], spans: [prompt] });
    const row = (from: number, token = 0) => decode(3, from, 1, { tokens: pages(token), logits: "last" });
    const { spans: [second] } = await run({ spans: [row(5, first?.token)] });
    const { spans: [third] } = await run({ spans: [row(6, second?.token)] });
    await fault(() => assert.rejects(run({ spans: [row(6, second?.token)] }), message));
    const { spans: [again] } = await run({ spans: [row(6, second?.token)] });
    assert.equal(again?.token, third?.token);
    assert.equal(new Set([1, 2, 3, 4, 5, first?.token, second?.token, third?.token]).size, 8);
    await run({ release: [3] });
  });
}

Deno.test("Engine.run() refuses a third step while two run, and after closing", async () => {
  const engine = await Engine.open({ model: { random: "tiny" }, kvTokens: 64, gpu: testProvider().name });
  const first = engine.run(step({ open: [open(1)], spans: [prefill(1, 0, 5, { newPages: pages(0) })] }));
  const second = engine.run(step({}));
  await assert.rejects(engine.run(step({})), { code: "invalid_step", message: /2 other steps are running$/ });
  const closed = engine.close();
  assert.equal((await first).spans.length, 1);
  assert.equal((await second).spans.length, 0);
  await closed;
  await engine.close();
  await assert.rejects(engine.run(step({})), { code: "invalid_step", message: /step 1: the engine is closed$/ });
  await mapsSettled();
});

Deno.test("Engine.calibrate() plans the layers, and refuses those that do not fit", () => {
  assert.deepEqual(fixture.engine.info.roles, ["dense", "select", "sparse"]);
  assert.deepEqual(fixture.engine.info.sparse, { budget: 64, sparseFrom: 128 });
  const calibration = { selectLayers: [2], budget: 64, sparseFrom: 0 };
  assert.throws(() => fixture.engine.calibrate(calibration), { code: "unsupported_model" });
  assert.deepEqual(fixture.engine.info.selectLayers, [1]);
});

/** Counts the devices that are open while `body` runs, and demands that none is left. */
async function leavingNoDevice(body: () => Promise<void>): Promise<void> {
  const { requestDevice } = GPUAdapter.prototype;
  const { destroy } = GPUDevice.prototype;
  const living = new Set<GPUDevice>();
  GPUAdapter.prototype.requestDevice = async function (...args) {
    const device = await requestDevice.apply(this, args);
    living.add(device);
    return device;
  };
  GPUDevice.prototype.destroy = function () {
    living.delete(this);
    return destroy.apply(this);
  };
  try {
    await body();
    assert.equal(living.size, 0, `${living.size} devices are left`);
  } finally {
    GPUAdapter.prototype.requestDevice = requestDevice;
    GPUDevice.prototype.destroy = destroy;
  }
  await mapsSettled();
}

const FIRST = "model-00001-of-00002.safetensors";

Deno.test("Engine.open() names what is wrong with a model's files, and leaves no device behind", async () => {
  const config = await readFixture<Record<string, unknown>>("mistral/config.json");
  const weights = await Deno.readFile(`${FIXTURES}mistral/${FIRST}`);
  const spoilt = (from: string, to: string) => {
    const text = new TextDecoder("latin1").decode(weights.subarray(0, 4096));
    const at = text.indexOf(from);
    assert.ok(at > 0 && from.length === to.length);
    const copy = weights.slice();
    copy.set(new TextEncoder().encode(to), at);
    return copy;
  };
  const cases = [
    [{ "config.json": undefined }, "invalid_model", /config\.json: no such file$/],
    [{ [FIRST]: undefined }, "invalid_model", /00001-of-00002\.safetensors: no such file$/],
    [{ [FIRST]: weights.slice(0, -100) }, "invalid_model", /00001.*expected \d+ bytes to hold tensor "[^"]+", found/],
    [{ [FIRST]: spoilt("F16", "X16") }, "unsupported_model", /00001.*tensor "[^"]+": dtype must be .* "X16"$/],
    [
      { "config.json": { ...config, "intermediate_size": 168 } },
      "invalid_model",
      /00001-of-00002\.safetensors: tensor model\.layers\.0\.mlp\.gate_proj\.weight must be \[168, 64\], found \[160, 64\]$/,
    ],
    [
      { "config.json": { ...config, "num_hidden_layers": 4 } },
      "invalid_model",
      /tensor model\.layers\.3\.input_layernorm\.weight: it is in no weight file$/,
    ],
    [{ "tidepool.json": { version: 1, "select_layers": [7] } }, "invalid_model", /tidepool\.json.*select layer 7 must/],
    [{ "tidepool.json": "{" }, "invalid_model", /tidepool\.json: expected a JSON object/],
  ] as const;
  for (const [changes, code, message] of cases) {
    await withChangedFixture("mistral", changes, async (directory) => {
      await leavingNoDevice(() =>
        assert.rejects(Engine.open({ model: { directory }, kvTokens: 64, gpu: testProvider().name }), {
          name: "EngineError",
          code,
          message,
        })
      );
    });
  }
});

Deno.test("Engine.open() names a shape that does not exist", async () => {
  await leavingNoDevice(() =>
    assert.rejects(Engine.open({ model: { random: "huge" }, kvTokens: 64, gpu: testProvider().name }), {
      code: "unsupported_model",
      message: /must be one of llama-3-8b, llama-3-8b-1m, llama-2-7b, tiny, given huge$/,
    })
  );
});

Deno.test("Engine.open() names the bound when the KV slice cannot be as large as asked for", async () => {
  const tooMany = [[0, /KV slice of 0 tokens: it must be from 1 to \d+ on this device$/], [NaN, /of NaN tokens/], [
    1e12,
    /KV slice of 1000000000000 tokens: it must be from 1 to \d+ on this device$/,
  ]] as const;
  for (const [kvTokens, message] of tooMany) {
    await leavingNoDevice(() =>
      assert.rejects(Engine.open({ model: { random: "tiny" }, kvTokens, gpu: testProvider().name }), {
        code: "kv_exhausted",
        message,
      })
    );
  }
});

Deno.test("Engine.open() reports progress up to the end, and facts of the model", async () => {
  const progress: number[] = [];
  let total = 0;
  const engine = await Engine.open(
    { model: { directory: `${FIXTURES}mistral` }, kvTokens: 100, gpu: testProvider().name },
    (done, all) => {
      progress.push(done);
      total = all;
    },
  );
  assert.equal(progress.at(-1), total);
  assert.ok(progress.every((done, i) => i === 0 || done > (progress[i - 1] ?? 0)));
  const { digest, kvPages, layers, vocabSize, roles, sparse } = engine.info;
  assert.match(digest, /^[0-9a-f]{64}$/);
  assert.deepEqual([kvPages, layers, vocabSize, roles, sparse], [2, 3, 576, undefined, undefined]);
  const session = new SessionHost(engine).open({ sparse: { budget: 16, heads: "kv_head" } });
  await session.prefill(Array(20).fill(5), "none");
  await assert.rejects(session.decode(5, "sparse"), /it is sparse, but the model has no calibration$/);
  await session.close();
  await engine.close();
  await mapsSettled();
});
