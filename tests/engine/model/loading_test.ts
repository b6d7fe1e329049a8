/** Weights that the GPU checks and converts, as adapters load them that are no software, beside what the files say. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";

import { FileSource } from "../../../engine/model/file_source.ts";
import { openSafetensors } from "../../../engine/model/safetensors.ts";
import { bf16ToF32, toHalf } from "../../../kernels/half.ts";
import { freeWeight, type Weight } from "../../../kernels/weights/weight.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { withFiles } from "../../support/model_directory.ts";
import { Random } from "../../support/random.ts";
import { encodeSafetensors, type NewTensor } from "../../support/safetensors_file.ts";

const fixture = gpuFixture();

const COLS = 256;
/** The large one takes two reads of 16 MiB. */
const ROWS = { large: 33_000, small: 3, halves: 5, floats: 2 } as const;
/** Numbers that are repeated: making millions would take seconds. */
const NORMALS = new Random(3).normals(100 * COLS);
const BF16 = Uint16Array.from(new Uint32Array(NORMALS.buffer), (word) => word >>> 16);

/** One tensor of each kind, with one number replaced where that is asked for. */
function tensors(
  spoilt?: { readonly name: keyof typeof ROWS; readonly at: number; readonly pattern: number },
): NewTensor[] {
  const made: NewTensor[] = [
    { name: "large", dtype: "BF16", shape: [ROWS.large, COLS], data: repeated(BF16, ROWS.large * COLS) },
    { name: "small", dtype: "BF16", shape: [ROWS.small, COLS], data: BF16.slice(0, ROWS.small * COLS) },
    { name: "halves", dtype: "F16", shape: [ROWS.halves, COLS], data: toHalf(NORMALS.slice(0, ROWS.halves * COLS)) },
    { name: "floats", dtype: "F32", shape: [ROWS.floats, COLS], data: NORMALS.slice(0, ROWS.floats * COLS) },
  ];
  for (const { name, data } of made) if (name === spoilt?.name) data[spoilt.at] = spoilt.pattern;
  return made;
}

function repeated(block: Uint16Array, length: number): Uint16Array<ArrayBuffer> {
  const data = new Uint16Array(length);
  for (let at = 0; at < length; at += block.length) data.set(block.subarray(0, length - at), at);
  return data;
}

/** The bytes of a weight whose rows are those of three tensors, and of one that is kept as it is. */
async function load(contents: readonly NewTensor[]): Promise<Uint8Array[]> {
  const bytes: Uint8Array[] = [];
  await withFiles({ "model.safetensors": encodeSafetensors(contents) }, async (directory) => {
    using files = await openSafetensors(directory);
    const weights: Weight[] = [];
    const source = new FileSource(fixture.commands, files, { onProgress: () => {} });
    try {
      const shape = { rows: [ROWS.small, ROWS.large, ROWS.halves], cols: COLS };
      weights.push(await source.matrix(["small", "large", "halves"], shape));
      weights.push(await source.matrix(["floats"], { rows: [ROWS.floats], cols: COLS }));
      await source.finish();
      for (const { parts } of weights) {
        bytes.push(...await fixture.gpu.read(parts.map(({ tensor }) => ({ tensor }))));
      }
    } finally {
      await source.close();
      for (const weight of weights) freeWeight(fixture.gpu, weight);
    }
  });
  return bytes;
}

/** Lets the fixture's adapter pass for a hardware one whose memory can be mapped. */
async function asHardware<T>(run: () => Promise<T>): Promise<T> {
  const { gpu } = fixture;
  const { traits } = gpu;
  Object.assign(gpu, { traits: { ...traits, mapsInPlace: true } });
  Object.defineProperty(gpu, "info", { configurable: true, value: { ...gpu.info, software: false } });
  try {
    return await run();
  } finally {
    Object.assign(gpu, { traits });
    Reflect.deleteProperty(gpu, "info");
  }
}

Deno.test("FileSource has the GPU convert 16-bit numbers to what they are in the files", async () => {
  const [halves, floats] = await asHardware(() => load(tensors()));
  const converted = toHalf(bf16ToF32(BF16));
  const expected = new Uint16Array((ROWS.small + ROWS.large + ROWS.halves) * COLS);
  expected.set(converted.subarray(0, ROWS.small * COLS));
  expected.set(repeated(converted, ROWS.large * COLS), ROWS.small * COLS);
  expected.set(toHalf(NORMALS.slice(0, ROWS.halves * COLS)), (ROWS.small + ROWS.large) * COLS);
  assert.ok(Buffer.from(expected.buffer).equals(halves ?? new Uint8Array()), "the weight of three tensors");
  assert.deepEqual(floats, new Uint8Array(NORMALS.slice(0, ROWS.floats * COLS).buffer));
});

Deno.test("FileSource names the number that the GPU found not to be one, wherever it is", async () => {
  const last = ROWS.large * COLS - 1;
  const cases = [
    [
      { name: "large", at: last, pattern: 0x7fc0 },
      `tensor large: .* found NaN at \\[${ROWS.large - 1}, ${COLS - 1}\\]$`,
    ],
    [
      { name: "small", at: 1, pattern: 0xc780 },
      "tensor small: .* finite numbers up to 65504, found -65536 at \\[0, 1\\]$",
    ],
    [{ name: "halves", at: COLS, pattern: 0x7c00 }, "tensor halves: .* found Infinity at \\[1, 0\\]$"],
  ] as const;
  for (const [spoilt, message] of cases) {
    const expected = { name: "EngineError", code: "invalid_model", message: new RegExp(message) };
    await assert.rejects(asHardware(() => load(tensors(spoilt))), expected);
  }
});
