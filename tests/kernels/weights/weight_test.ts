import assert from "node:assert/strict";
import { GpuError } from "../../../kernels/errors.ts";
import { bf16ToF32, fromHalf, MAX_BF16_IN_HALF, toHalf } from "../../../kernels/half.ts";
import { convertBf16Rows } from "../../../kernels/weights/bf16_rows.ts";
import { randomWeight } from "../../../kernels/weights/random_weight.ts";
import { embed } from "../../../kernels/products/embed.ts";
import { QUANTIZED_DTYPES, weightBytes, type WeightDType } from "../../../kernels/weights/format.ts";
import type { PlainDType } from "../../../kernels/weights/source_types.ts";
import { createWeight, freeWeight, type Weight } from "../../../kernels/weights/weight.ts";
import { fitsHalf, writeRows } from "../../../kernels/weights/write_rows.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

async function valuesOf(weight: Weight): Promise<number[]> {
  fixture.commands.submit();
  const bytes = await fixture.gpu.read(weight.parts.map(({ tensor, dtype, rows }) => ({
    tensor,
    byteLength: weightBytes(dtype, rows * weight.cols),
  })));
  return bytes.flatMap(({ buffer }, i) => [
    ...(weight.parts[i]?.dtype === "f16" ? fromHalf(new Uint16Array(buffer)) : new Float32Array(buffer)),
  ]);
}

/** Values as a file holds them, at an odd offset, and what they stand for. */
function asFile(source: PlainDType, values: Float32Array<ArrayBuffer>) {
  const upper = Uint16Array.from(new Uint32Array(values.buffer), (word) => word >>> 16);
  const stored = source === "F32" ? values : source === "F16" ? toHalf(values) : upper;
  const bytes = new Uint8Array(stored.byteLength + 1);
  bytes.set(new Uint8Array(stored.buffer), 1);
  const meant = source === "F32" ? values : source === "F16" ? fromHalf(toHalf(values)) : bf16ToF32(upper);
  return { data: bytes.subarray(1), meant };
}

for (const source of ["F32", "F16", "BF16"] as const) {
  for (const dtype of ["f16", "f32"] as const satisfies WeightDType[]) {
    Deno.test(`writeRows() keeps ${source} as ${dtype}, over parts and in pieces`, async () => {
      const [rows, cols] = [13, 24];
      const weight = createWeight(fixture.gpu, "w", { rows, cols, dtype, partBytes: 5 * cols * 4 });
      assert.ok(weight.parts.length > 1);
      const { data, meant } = asFile(source, new Random(9).normals(rows * cols));
      const cut = 7 * (data.byteLength / rows);
      writeRows(fixture, weight, { firstRow: 7, source, data: data.subarray(cut) });
      writeRows(fixture, weight, { firstRow: 0, source, data: data.subarray(0, cut) });
      assert.deepEqual(await valuesOf(weight), [...(dtype === "f16" ? fromHalf(toHalf(meant)) : meant)]);
      freeWeight(fixture.gpu, weight);
    });
  }
}

Deno.test("convertBf16Rows() rounds every bf16 within f16 to the nearest one", async () => {
  const within = Uint16Array.from({ length: 65536 }, (_, pattern) => pattern)
    .filter((pattern) => (pattern & 0x7fff) <= MAX_BF16_IN_HALF);
  const rows = within.length / 8;
  const weight = createWeight(fixture.gpu, "w", { rows: rows + 1, cols: 8, dtype: "f16" });
  const [part = assert.fail("no part")] = weight.parts;
  const raw = fixture.upload("u32", new Uint32Array(within.buffer), [within.length / 2]);
  convertBf16Rows(fixture.commands, { raw, part, cols: 8, firstRow: 1, rows });
  fixture.commands.submit();
  const [bytes] = await fixture.gpu.read([{ tensor: part.tensor, byteLength: 16 + 2 * within.length }]);
  assert.deepEqual(new Uint16Array(bytes?.buffer ?? new ArrayBuffer(), 16), toHalf(bf16ToF32(within)));
  freeWeight(fixture.gpu, weight);
});

Deno.test("writeRows() refuses values beyond f16, and fitsHalf() foresees it", () => {
  const weight = createWeight(fixture.gpu, "w", { rows: 1, cols: 8, dtype: "f16" });
  for (
    const [value, fits] of [[65280, true], [-65280, true], [65536, false], [Infinity, false], [NaN, false]] as const
  ) {
    for (const source of ["F32", "BF16"] as const) {
      const { data } = asFile(source, Float32Array.of(0, 1, value, 3, 4, 5, 6, 7));
      assert.equal(fitsHalf(source, data), fits, `${source} ${value}`);
      const write = () => writeRows(fixture, weight, { firstRow: 0, source, data });
      if (fits) write();
      else assert.throws(write, GpuError);
    }
  }
  freeWeight(fixture.gpu, weight);
});

Deno.test("writeRows() refuses numbers that are not finite, whatever the weight is kept as", () => {
  for (const dtype of ["f16", "f32"] as const) {
    const weight = createWeight(fixture.gpu, "w", { rows: 1, cols: 8, dtype });
    for (const source of ["F32", "F16", "BF16"] as const) {
      for (const value of [Infinity, -Infinity, NaN]) {
        const { data } = asFile(source, Float32Array.of(0, 1, 2, 3, 4, 5, 6, value));
        const write = () => writeRows(fixture, weight, { firstRow: 0, source, data });
        assert.throws(write, {
          name: "GpuError",
          code: "invalid_shape",
          message: /expected .*values.*, found Infinity$/,
        });
      }
    }
    freeWeight(fixture.gpu, weight);
  }
});

Deno.test("writeRows() refuses what are not whole rows of the weight", () => {
  const weight = createWeight(fixture.gpu, "w", { rows: 2, cols: 8, dtype: "f16" });
  for (const [firstRow, bytes] of [[0, 15], [2, 16], [1, 32]] as const) {
    const data = new Uint8Array(bytes);
    assert.throws(() => writeRows(fixture, weight, { firstRow, source: "F16", data }), GpuError);
  }
  writeRows(fixture, weight, { firstRow: 2, source: "F16", data: new Uint8Array(0) });
  freeWeight(fixture.gpu, weight);
});

Deno.test("createWeight() refuses columns that are not a multiple of 8, and gives its memory back", () => {
  assert.throws(() => createWeight(fixture.gpu, "w", { rows: 4, cols: 12, dtype: "f16" }), GpuError);
  const before = fixture.gpu.allocatedBytes;
  const weight = createWeight(fixture.gpu, "w", { rows: 640, cols: 64, dtype: "f32", partBytes: 64 * 64 * 4 });
  assert.deepEqual(weight.parts.map(({ firstRow }) => firstRow), [0, 64, 128, 192, 256, 320, 384, 448, 512, 576]);
  freeWeight(fixture.gpu, weight);
  assert.equal(fixture.gpu.allocatedBytes, before);
});

Deno.test("randomWeight() has the asked deviation, depends on the seed, and not on parts or format", async () => {
  const make = async (seed: number, dtype: WeightDType, partBytes: number) => {
    const weight = createWeight(fixture.gpu, "w", { rows: 300, cols: 64, dtype, partBytes });
    randomWeight(fixture.commands, weight, { seed, deviation: 0.02 });
    const values = await valuesOf(weight);
    freeWeight(fixture.gpu, weight);
    return values;
  };
  const values = await make(1, "f32", 1e6);
  const mean = values.reduce((sum, value) => sum + value) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
  assert.ok(Math.abs(mean) < 5e-4 && Math.abs(deviation - 0.02) < 2e-4, `mean ${mean}, deviation ${deviation}`);
  assert.deepEqual(await make(1, "f32", 64 * 64 * 4), values);
  assert.deepEqual(await make(1, "f16", 64 * 64 * 4), [...fromHalf(toHalf(values))]);
  assert.notDeepEqual(await make(2, "f32", 1e6), values);
});

Deno.test("randomWeight() gives quantised weights the asked deviation, and neither rows nor their groups a mean", async () => {
  const [rows, cols] = [64, 512];
  const every = Uint32Array.from({ length: rows }, (_, row) => row);
  for (const dtype of QUANTIZED_DTYPES) {
    const weight = createWeight(fixture.gpu, "w", { rows, cols, dtype });
    randomWeight(fixture.commands, weight, { seed: 1, deviation: 1 });
    const out = fixture.zeros("f32", [rows, cols]);
    embed(fixture.commands, { weight, tokens: fixture.upload("u32", every, [rows]), out, rows });
    const values = await fixture.floats(out);
    freeWeight(fixture.gpu, weight);
    // Of sums of so many neighbours, in units of what they are when the numbers are independent.
    const spread = (count: number) => {
      const sums = new Float64Array(values.length / count);
      for (const [i, value] of values.entries()) {
        sums[Math.floor(i / count)] = (sums[Math.floor(i / count)] ?? 0) + value;
      }
      return Math.sqrt(sums.reduce((total, sum) => total + sum * sum, 0) / values.length);
    };
    assert.ok(Math.abs(spread(1) - 1) < 0.03, `${dtype}: deviation ${spread(1)}`);
    assert.ok(Math.abs(spread(32) - 1) < 0.25, `${dtype}: groups ${spread(32)}`);
    // Half a quantum of q4 on each of a row makes 2.7.
    assert.ok(Math.abs(spread(cols) - 1) < 0.35, `${dtype}: rows ${spread(cols)}`);
  }
});
