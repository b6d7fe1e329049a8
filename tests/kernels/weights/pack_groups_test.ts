import assert from "node:assert/strict";
import { GpuError } from "../../../kernels/errors.ts";
import { toHalf } from "../../../kernels/half.ts";
import { embed } from "../../../kernels/products/embed.ts";
import {
  type BlockDType,
  BLOCKS,
  keptAs,
  type PlainDType,
  sourceBytes,
} from "../../../kernels/weights/source_types.ts";
import { createWeight, freeWeight, type Weight } from "../../../kernels/weights/weight.ts";
import { writeRows } from "../../../kernels/weights/write_rows.ts";
import { dequantize } from "../../reference/dequantize.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { randomBlocks } from "../../support/random_blocks.ts";

const fixture = gpuFixture();
const TYPES = Object.keys(BLOCKS) as BlockDType[];

/** What kernels decode, row by row. */
async function decoded(weight: Weight): Promise<Float32Array> {
  const { rows, cols } = weight;
  const tokens = fixture.upload("u32", Uint32Array.from({ length: rows }, (_, i) => i), [rows]);
  const out = fixture.zeros("f32", [rows, cols]);
  embed(fixture.commands, { weight, tokens, out, rows });
  return await fixture.floats(out);
}

for (const source of TYPES) {
  // Groups of a row are odd in number: rows begin in the middle of a word of scales.
  const [rows, cols] = [11, BLOCKS[source].weights * 3];
  const rowBytes = sourceBytes(source, cols);

  Deno.test(`writeRows() keeps ${source} to the last bit, over parts and in pieces`, async () => {
    const dtype = keptAs(source);
    const weight = createWeight(fixture.gpu, "w", { rows, cols, dtype, partBytes: 5 * rowBytes });
    assert.ok(weight.parts.length > 1);
    const data = randomBlocks(new Random(3), source, rows * cols);
    for (const [firstRow, end] of [[7, rows], [0, 3], [3, 7]] as const) {
      const piece = data.slice(firstRow * rowBytes, end * rowBytes);
      writeRows(fixture, weight, { firstRow, source, data: piece });
    }
    assert.deepEqual(await decoded(weight), dequantize(source, data));
    freeWeight(fixture.gpu, weight);
  });

  Deno.test(`writeRows() refuses scales of ${source} beyond f16, and broken rows`, () => {
    const weight = createWeight(fixture.gpu, "w", { rows, cols, dtype: keptAs(source) });
    for (const [offset] of BLOCKS[source].scales) {
      const data = randomBlocks(new Random(3), source, cols);
      data.set([0x00, 0x7c], BLOCKS[source].bytes + offset);
      assert.throws(() => writeRows(fixture, weight, { firstRow: 0, source, data }), {
        name: "GpuError",
        code: "invalid_shape",
        message: /expected scales up to [\d.]+, found Infinity$/,
      });
    }
    const data = new Uint8Array(rowBytes - 1);
    assert.throws(() => writeRows(fixture, weight, { firstRow: 0, source, data }), GpuError);
    freeWeight(fixture.gpu, weight);
  });
}

Deno.test("writeRows() refuses to make one quantised type of another", () => {
  const weight = createWeight(fixture.gpu, "w", { rows: 1, cols: 32, dtype: "q4" });
  const data = randomBlocks(new Random(3), "Q8_0", 32);
  assert.throws(() => writeRows(fixture, weight, { firstRow: 0, source: "Q8_0", data }), /Q8_0 cannot become q4/);
  freeWeight(fixture.gpu, weight);
});

function bytesOf(source: PlainDType, values: Float32Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (source === "F32") return new Uint8Array(values.buffer);
  if (source === "F16") return new Uint8Array(toHalf(values).buffer);
  return new Uint8Array(Uint16Array.from(new Uint32Array(values.buffer), (word) => word >>> 16).buffer);
}

/** Numbers that every plain type holds exactly, of different size from group to group; one group is all zeros. */
function coarse(count: number): Float32Array<ArrayBuffer> {
  const random = new Random(8);
  return Float32Array.from({ length: count }, (_, i) => {
    const group = Math.floor(i / 32);
    return group === 2 ? 0 : (random.integer(255) - 127) * 2 ** -(group % 8);
  });
}

for (const source of ["F32", "F16", "BF16"] as const) {
  for (const dtype of ["q8", "q4"] as const) {
    Deno.test(`writeRows() quantises ${source} to ${dtype}, each group within half a step of its own scale`, async () => {
      const [rows, cols] = [5, 96];
      const values = coarse(rows * cols);
      const weight = createWeight(fixture.gpu, "w", { rows, cols, dtype, partBytes: 250 });
      assert.ok(weight.parts.length > 1);
      const data = bytesOf(source, values);
      const cut = 2 * data.length / rows;
      writeRows(fixture, weight, { firstRow: 2, source, data: data.slice(cut) });
      writeRows(fixture, weight, { firstRow: 0, source, data: data.slice(0, cut) });
      const found = await decoded(weight);
      for (let group = 0; group < rows * cols / 32; group++) {
        const [given, kept] = [values, found].map((all) => all.slice(32 * group, 32 * group + 32));
        const largest = Math.max(...(given ?? []).map(Math.abs));
        // The far end of a 4-bit group may be cut by half a step more: −8 has no counterpart at 8.
        const bound = dtype === "q8" ? largest / 127 * 0.51 : largest / 7.1;
        (given ?? []).forEach((value, i) => assert.ok(Math.abs(value - (kept?.[i] ?? NaN)) <= bound));
      }
      freeWeight(fixture.gpu, weight);
    });
  }
}

/** Σ(v − w)² / Σv² of normal numbers after quantising. */
async function noise(dtype: "q8" | "q4"): Promise<number> {
  const [rows, cols] = [16, 1024];
  const { halves, values } = new Random(5).halves(rows * cols, 0.02);
  const weight = createWeight(fixture.gpu, "w", { rows, cols, dtype });
  writeRows(fixture, weight, { firstRow: 0, source: "F16", data: new Uint8Array(halves.buffer) });
  const found = await decoded(weight);
  freeWeight(fixture.gpu, weight);
  const sum = (of: (value: number, i: number) => number) => values.reduce((total, value, i) => total + of(value, i), 0);
  return sum((value, i) => (value - (found[i] ?? NaN)) ** 2) / sum((value) => value ** 2);
}

Deno.test("Quantising normal numbers leaves the noise that so many bits leave", async () => {
  // A uniform quantiser with steps of a third of a deviation: 0.0083 for the plain maximum, less with a searched scale.
  const [eight, four] = [await noise("q8"), await noise("q4")];
  assert.ok(eight < 3e-5, `q8 leaves ${eight}`);
  assert.ok(four < 0.0078 && four > 0.003, `q4 leaves ${four}`);
});
