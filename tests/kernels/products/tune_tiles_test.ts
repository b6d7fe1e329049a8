import assert from "node:assert/strict";
import { planMatmul } from "../../../kernels/products/matmul.ts";
import { choiceKey, TileChoices, TUNED_ROWS } from "../../../kernels/products/tile_choice.ts";
import { type TunedPlan, tuneTiles } from "../../../kernels/products/tune_tiles.ts";
import { Commands } from "../../../kernels/pipeline.ts";
import { createWeight, freeWeight } from "../../../kernels/weights/weight.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";

const fixture = gpuFixture();

/** A GPU without matrix units, as far as plans go; its kernels run on a software adapter too. */
const PLAIN = {
  ...{
    software: false,
    loadsByLane: false,
    matrix: [],
    subgroups: false,
    subgroupSize: undefined,
    maxInvocations: 1024,
  },
  ...{ maxBindingBytes: 2 ** 31, maxBufferBytes: 2 ** 32 },
};
const isLarge = (plan: TunedPlan) => plan.kind === "tiles" && plan.side === 128;

Deno.test("tuneTiles() measures each shape once, and takes what is faster by more than timing noise", async () => {
  const commands = new Commands(fixture.gpu);
  const weights = [128, 128, 256].map((rows) => createWeight(fixture.gpu, "w", { rows, cols: 64, dtype: "f16" }));
  const timed: string[] = [];
  // The rule has small tiles for weights of this size.
  const ms = new Map([["512 by 128", 0.9], ["2048 by 128", 0.99], ["512 by 256", 1.5], ["2048 by 256", 0.5]]);
  const measured = await tuneTiles(commands, weights, {
    adapter: PLAIN,
    time: (_, { weight, rows }, plan) => {
      const name = `${rows} by ${weight.rows}`;
      timed.push(`${name} ${isLarge(plan) ? "large" : "small"}`);
      return Promise.resolve(isLarge(plan) ? ms.get(name) ?? NaN : 1);
    },
  });
  assert.equal(measured, 4);
  assert.equal(timed.length, 8);
  assert.deepEqual(commands.tiles.entries, {
    "512 by 128×64 f16": "large",
    "2048 by 128×64 f16": "small",
    "512 by 256×64 f16": "small",
    "2048 by 256×64 f16": "large",
  });
  const again = await tuneTiles(commands, weights, { adapter: PLAIN, time: () => assert.fail("measured again") });
  assert.equal(again, 0);
  for (const weight of weights) freeWeight(fixture.gpu, weight);
});

Deno.test("tuneTiles() measures quantised weights with few rows too, where subgroups multiply them", async () => {
  const commands = new Commands(fixture.gpu);
  const weight = createWeight(fixture.gpu, "w", { rows: 64, cols: 64, dtype: "q4" });
  for (const row of TUNED_ROWS) commands.tiles.set(choiceKey(row, weight), "small");
  const timed: (readonly [number, string | undefined])[] = [];
  const measured = await tuneTiles(commands, [weight], {
    adapter: { ...PLAIN, subgroups: true, subgroupSize: 32 },
    time: (_, { rows, x }, plan) => {
      assert.ok(plan.kind === "subgroups" && x.form === "digits");
      timed.push([rows, plan.size]);
      return Promise.resolve(plan.size === "large" ? 0.8 : 1);
    },
  });
  assert.equal(measured, 1);
  assert.deepEqual(timed, [[8, "small"], [8, "large"]]);
  const sizes = [1, 4, 5, 8, 64].map((rows) => commands.tiles.sizeForFew(rows, weight));
  assert.deepEqual(sizes, [undefined, undefined, "large", "large", "large"]);
  freeWeight(fixture.gpu, weight);
});

Deno.test("tuneTiles() times kernels by the wall clock, and gives its memory back", async () => {
  const commands = new Commands(fixture.gpu);
  const weight = createWeight(fixture.gpu, "w", { rows: 64, cols: 32, dtype: "f16" });
  const before = fixture.gpu.allocatedBytes;
  assert.equal(await tuneTiles(commands, [weight], { adapter: PLAIN }), 2);
  assert.equal(fixture.gpu.allocatedBytes, before);
  if (fixture.gpu.info.software) assert.equal(await tuneTiles(new Commands(fixture.gpu), [weight]), 0);
  freeWeight(fixture.gpu, weight);
});

Deno.test("TileChoices go by the nearest number of rows that was measured, and leave few rows to the rule", () => {
  const weight = { rows: 4096, cols: 4096, parts: [] };
  const choices = new TileChoices();
  choices.set(choiceKey(512, weight), "small");
  choices.set(choiceKey(2048, weight), "large");
  const sizes = [1, 255, 256, 1023, 1024, 2048].map((rows) => choices.sizeFor(rows, weight));
  assert.deepEqual(sizes, [undefined, undefined, "small", "small", "large", "large"]);
  assert.equal(choices.sizeFor(2048, { ...weight, rows: 1024 }), undefined);
  assert.deepEqual(planMatmul(PLAIN, 2048, weight, { size: "small" }), { kind: "tiles", side: 64 });
  assert.deepEqual(planMatmul(PLAIN, 256, { ...weight, rows: 64 }, { size: "large" }), { kind: "tiles", side: 128 });
});
