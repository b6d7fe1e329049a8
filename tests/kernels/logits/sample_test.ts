import assert from "node:assert/strict";
import { BANNED } from "../../../kernels/logits/adjust_logits.ts";
import { packSampling, type RowSampling, sample, SAMPLING_WORDS } from "../../../kernels/logits/sample.ts";
import { sample as expectedDraw } from "../../reference/sample.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

async function draw(
  logits: Float32Array<ArrayBuffer>,
  settings: readonly RowSampling[],
  threads?: number,
): Promise<Uint32Array> {
  const rows = settings.length;
  const vocabulary = logits.length / Math.max(1, rows);
  const tokens = fixture.zeros("u32", [rows]);
  sample(fixture.commands, {
    logits: fixture.upload("f32", logits, [rows, vocabulary]),
    sampling: fixture.upload("u32", packSampling(settings), [rows, SAMPLING_WORDS]),
    tokens,
    rows,
    vocabulary,
  }, threads);
  return await fixture.words(tokens);
}

function repeat(row: Float32Array, times: number): Float32Array<ArrayBuffer> {
  const rows = new Float32Array(row.length * times);
  for (let i = 0; i < times; i++) rows.set(row, i * row.length);
  return rows;
}

const SETTINGS: readonly Omit<RowSampling, "seed" | "outputIndex">[] = [
  { temperature: 0 },
  { temperature: 1 },
  { temperature: 0.3 },
  { temperature: 5 },
  { temperature: 2, topK: 3 },
  { temperature: 2, topK: 40 },
  { temperature: 1.5, topP: 0.9 },
  { temperature: 3, topP: 0.35 },
  { temperature: 3, minP: 0.05 },
  { temperature: 4, topK: 1000, topP: 0.8, minP: 0.01 },
  { temperature: 1, topP: 0 },
  { temperature: 1, topK: 1 },
];

for (const [vocabulary, draws, threads] of [[7, 8, 256], [4096, 8, 256], [4099, 2, 1024], [128256, 1, 256]] as const) {
  Deno.test(`sample() draws what the f64 reference draws, vocabulary ${vocabulary}, ${threads} threads`, async () => {
    const random = new Random(vocabulary);
    let compared = 0;
    for (let n = 0; n < draws; n++) {
      const settings = SETTINGS.map((setting, i) => ({ ...setting, seed: 1000 * n + i, outputIndex: n }));
      const logits = random.normals(vocabulary * settings.length, 3);
      const tokens = await draw(logits, settings, threads);
      settings.forEach((setting, row) => {
        const expected = expectedDraw(logits.subarray(row * vocabulary, (row + 1) * vocabulary), setting);
        // f32 noise and scaled logits err by about 1e-6 each; nearer rivals may swap.
        if (expected.margin < 2e-5) return;
        compared++;
        assert.equal(tokens[row], expected.token, `row ${row}: ${JSON.stringify(setting)}`);
      });
    }
    assert.ok(compared >= 0.95 * draws * SETTINGS.length, `only ${compared} draws were clear`);
  });
}

Deno.test("sample() takes the lower id of equal highest logits at temperature 0 and with top_k 1", async () => {
  const row = new Float32Array(300).fill(-2);
  row[100] = row[299] = 5;
  const tokens = await draw(repeat(row, 2), [
    { temperature: 0, seed: 1, outputIndex: 0 },
    { temperature: 1, topK: 1, seed: 2, outputIndex: 0 },
  ]);
  assert.deepEqual([...tokens], [100, 100]);
});

Deno.test("sample() keeps all logits that are equal to the lowest one kept by top_k, and no lower one", async () => {
  const row = Float32Array.from([9, 1, 8, 8, 8, 2, -3]);
  const settings = Array.from({ length: 200 }, (_, i) => ({ temperature: 10, topK: 2, seed: 7, outputIndex: i }));
  assert.deepEqual(new Set(await draw(repeat(row, 200), settings)), new Set([0, 2, 3, 4]));
});

Deno.test("sample() distinguishes the logits of top_k by their last bits", async () => {
  const [vocabulary, topK, draws] = [5000, 1500, 60];
  // Neighbouring f32 numbers, scattered: 7 and 5000 have no common factor. They differ in their two lower digits.
  const row = Float32Array.from({ length: vocabulary }, (_, i) => 1 + ((i * 7) % vocabulary) * 2 ** -23);
  const lowest = Float32Array.from(row).sort().at(-topK) ?? NaN;
  const settings = Array.from({ length: draws }, (_, i) => ({ temperature: 1, topK, seed: 5, outputIndex: i }));
  const drawn = new Set(await draw(repeat(row, draws), settings));
  for (const token of drawn) assert.ok(Number(row[token]) >= lowest, `token ${token} is not among the ${topK}`);
  assert.ok(drawn.size > draws / 2, `only ${drawn.size} tokens were ever drawn`);
});

Deno.test("sample() draws in proportion to softmax (chi-squared, fixed seeds)", async () => {
  const [draws, temperature] = [4000, 0.8];
  const row = Float32Array.from([1, 0.5, 0, -0.5, -1, 2, 1.5]);
  const weights = Array.from(row, (logit) => Math.exp(logit / temperature));
  const total = weights.reduce((a, b) => a + b);
  const settings = Array.from(
    { length: draws },
    (_, i) => ({ temperature, seed: i % 10, outputIndex: Math.floor(i / 10) }),
  );
  const counts = new Array<number>(row.length).fill(0);
  for (const token of await draw(repeat(row, draws), settings)) counts[token] = (counts[token] ?? 0) + 1;
  const chiSquared = weights.reduce((sum, weight, token) => {
    const expected = draws * weight / total;
    return sum + ((counts[token] ?? 0) - expected) ** 2 / expected;
  }, 0);
  // 6 degrees of freedom: 22.5 is exceeded once in a thousand times by a fair sampler, and the seeds are fixed.
  assert.ok(chiSquared < 22.5, `chi-squared ${chiSquared}, counts ${counts}`);
});

Deno.test("sample() draws the same token for a seed, alone and in company", async () => {
  const random = new Random(3);
  const rows = 9;
  const logits = random.normals(rows * 1000);
  const settings = Array.from(
    { length: rows },
    (_, i) => ({ temperature: 1, topP: 0.95, seed: 11 * i, outputIndex: i }),
  );
  const together = await draw(logits, settings);
  assert.deepEqual(await draw(logits, settings), together);
  for (let row = 0; row < rows; row++) {
    const alone = await draw(logits.slice(row * 1000, (row + 1) * 1000), settings.slice(row, row + 1));
    assert.equal(alone[0], together[row]);
  }
});

Deno.test("sample() never draws a banned token, at any temperature", async () => {
  const row = new Float32Array(64).fill(BANNED);
  row[17] = -4;
  const temperatures = [0, 2e-5, 0.5, 1, 2, 100];
  const settings = temperatures.map((temperature, i) => ({ temperature, seed: i, outputIndex: 3 }));
  assert.deepEqual([...await draw(repeat(row, settings.length), settings)], temperatures.map(() => 17));
});

Deno.test("sample() of no rows does nothing", async () => {
  assert.equal((await draw(new Float32Array(0), [])).length, 0);
});
