import assert from "node:assert/strict";
import { fromHalf, MAX_HALF } from "../../../kernels/half.ts";
import { type HeadShape, PAGE_ROWS } from "../../../kernels/attention/kv_pages.ts";
import { ropeAppend } from "../../../kernels/attention/rope_append.ts";
import { rmsNorm } from "../../reference/rms_norm.ts";
import { rotate } from "../../reference/rope_append.ts";
import type { Tensor } from "../../../kernels/tensor.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { tableRow, uploadRows } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

interface RopeCase extends HeadShape {
  readonly rows: number;
  readonly bias: boolean;
  readonly norms: boolean;
}

const CASES: readonly RopeCase[] = [
  { heads: 4, kvHeads: 2, headDim: 64, rows: 1, bias: false, norms: false },
  { heads: 4, kvHeads: 2, headDim: 16, rows: 70, bias: true, norms: false },
  { heads: 7, kvHeads: 1, headDim: 128, rows: 3, bias: false, norms: true },
  { heads: 3, kvHeads: 3, headDim: 24, rows: 5, bias: true, norms: true },
  { heads: 2, kvHeads: 1, headDim: 40, rows: 2, bias: false, norms: false },
];

const EPS = 1e-5;
const SCALE = 0.3;
/** Of f16 queries: tiles read beyond the last row. */
const SPARE_ROWS = 2;

/** Rows go into slot 1, whose pages are out of order; no other page may change. */
const PAGE_TABLE = Uint32Array.from([9, 9, 9, 9, 2, 5, 0, 9]);
const MAX_PAGES = 4;
const PAGES = 6;
const SLOT = 1;

for (const shape of CASES) {
  const { heads, kvHeads, headDim, rows, bias, norms } = shape;
  const name = `${rows} rows of ${heads}/${kvHeads}×${headDim}${bias ? ", bias" : ""}${norms ? ", norms" : ""}`;
  Deno.test(`ropeAppend() equals plain loops: ${name}`, async () => {
    const inputs = draw(shape);
    const actual = await run(shape, inputs);
    const expected = reference(shape, inputs);
    // f32 arithmetic on q, f16 storage of k and v.
    assertClose(actual.q, expected.q, { nmse: 1e-12 });
    assertClose(actual.k, expected.k, { nmse: 1e-6 });
    assertClose(actual.v, expected.v, { nmse: 1e-6 });
  });
}

for (const shape of CASES) {
  const { heads, kvHeads, headDim, rows } = shape;
  const group = heads / kvHeads;
  Deno.test(`ropeAppend() writes q as halves, those of a KV head together: ${rows} rows of ${heads}/${kvHeads}×${headDim}`, async () => {
    const inputs = draw(shape);
    const q = fixture.zeros("f16", [kvHeads, rows + SPARE_ROWS, group, headDim]);
    const actual = await run(shape, inputs, q);
    const expected = new Float64Array(actual.q.length);
    reference(shape, inputs).q.forEach((value, i) => {
      const [row, head] = [Math.floor(i / (heads * headDim)), Math.floor(i / headDim) % heads];
      const place = (Math.floor(head / group) * (rows + SPARE_ROWS) + row) * group + head % group;
      expected[place * headDim + i % headDim] = value * SCALE * Math.LOG2E;
    });
    // Rounded to f16; rows beyond stay as they were.
    assertClose(actual.q, expected, { nmse: 1e-6 });
    assertClose(actual.k, reference(shape, inputs).k, { nmse: 1e-6 });
  });
}

Deno.test("ropeAppend() keeps what f16 cannot hold finite", async () => {
  const shape = { heads: 1, kvHeads: 1, headDim: 8, rows: 1, bias: false, norms: false };
  const inputs = { ...draw(shape), qkv: Float32Array.from({ length: 24 }, (_, i) => i % 2 === 0 ? 1e6 : -1e6) };
  const { v } = await run(shape, inputs);
  const written = v.filter((value) => value !== 0);
  assert.deepEqual([...written], Array.from({ length: 8 }, (_, i) => i % 2 === 0 ? MAX_HALF : -MAX_HALF));
});

interface Inputs {
  readonly qkv: Float32Array<ArrayBuffer>;
  readonly biases: Float32Array<ArrayBuffer>;
  readonly norms: { readonly q: Float32Array<ArrayBuffer>; readonly k: Float32Array<ArrayBuffer> };
  readonly rotations: Float32Array<ArrayBuffer>;
  /** Where each row's K and V go; undefined when another worker owns it. */
  readonly appendRows: readonly (number | undefined)[];
}

function draw({ heads, kvHeads, headDim, rows }: RopeCase): Inputs {
  const random = new Random(1);
  const slots = heads + 2 * kvHeads;
  const angles = Array.from({ length: (rows * headDim) / 2 }, () => 6 * random.uniform());
  return {
    qkv: random.normals(rows * slots * headDim),
    biases: random.normals(slots * headDim),
    norms: { q: random.normals(headDim), k: random.normals(headDim) },
    rotations: Float32Array.from(angles.flatMap((angle) => [Math.cos(angle), Math.sin(angle)])),
    // Backwards from the third page.
    appendRows: Array.from({ length: rows }, (_, row) => row === 1 ? undefined : 140 - row),
  };
}

async function run({ rows, bias, norms, ...shape }: RopeCase, inputs: Inputs, halves?: Tensor) {
  const { heads, kvHeads, headDim } = shape;
  const width = (heads + 2 * kvHeads) * headDim;
  const pool = [PAGES, kvHeads, PAGE_ROWS, headDim];
  const kv = { k: fixture.zeros("f16", pool), v: fixture.zeros("f16", pool) };
  const q = halves ?? fixture.zeros("f32", [rows, heads, headDim]);
  const weight = (data: Float32Array<ArrayBuffer>) => fixture.upload("f32", data, [data.length]);
  const table = inputs.appendRows.map((appendRow, row) => tableRow({ kvLimit: row, sequenceSlot: SLOT, appendRow }));
  ropeAppend(fixture.commands, {
    shape,
    rows,
    qkv: fixture.upload("f32", inputs.qkv, [rows, width]),
    ...(bias ? { bias: weight(inputs.biases) } : {}),
    ...(norms ? { norms: { q: weight(inputs.norms.q), k: weight(inputs.norms.k), eps: EPS } } : {}),
    rotations: fixture.upload("f32", inputs.rotations, [rows, headDim / 2, 2]),
    rowTable: uploadRows(fixture, table),
    kv,
    pageTable: fixture.upload("u32", PAGE_TABLE, [2, MAX_PAGES]),
    maxPages: MAX_PAGES,
    q,
    scale: SCALE,
  });
  fixture.commands.submit();
  const halvesIn = async (tensor: Tensor) => {
    const [bytes] = await fixture.gpu.read([{ tensor }]);
    return fromHalf(new Uint16Array(bytes?.buffer ?? new ArrayBuffer()));
  };
  return {
    q: halves === undefined ? await fixture.floats(q) : await halvesIn(halves),
    k: await halvesIn(kv.k),
    v: await halvesIn(kv.v),
  };
}

function reference({ heads, kvHeads, headDim, rows, bias, norms }: RopeCase, inputs: Inputs) {
  const slots = heads + 2 * kvHeads;
  const size = PAGES * kvHeads * PAGE_ROWS * headDim;
  const expected = {
    q: new Float64Array(rows * heads * headDim),
    k: new Float64Array(size),
    v: new Float64Array(size),
  };
  for (let index = 0; index < rows * slots; index++) {
    const [row, slot] = [Math.floor(index / slots), index % slots];
    const kind = slot < heads ? "q" : slot < heads + kvHeads ? "k" : "v";
    let head: ArrayLike<number> = Float64Array.from(
      { length: headDim },
      (_, i) => (inputs.qkv[index * headDim + i] ?? NaN) + (bias ? inputs.biases[slot * headDim + i] ?? NaN : 0),
    );
    if (kind !== "v") {
      if (norms) head = rmsNorm(head, inputs.norms[kind], EPS);
      head = rotate(head, inputs.rotations.subarray(row * headDim, (row + 1) * headDim));
    }
    const local = inputs.appendRows[row];
    if (kind === "q") expected.q.set(head, (row * heads + slot) * headDim);
    else if (local !== undefined) expected[kind].set(head, poolRow(local, (slot - heads) % kvHeads, kvHeads) * headDim);
  }
  return expected;
}

function poolRow(local: number, kvHead: number, kvHeads: number): number {
  const page = PAGE_TABLE[SLOT * MAX_PAGES + Math.floor(local / PAGE_ROWS)] ?? NaN;
  return (page * kvHeads + kvHead) * PAGE_ROWS + local % PAGE_ROWS;
}
