import assert from "node:assert/strict";
import { fromHalf } from "../../kernels/half.ts";
import { PAGE_ROWS } from "../../kernels/kv_pages.ts";
import { ropeAppend } from "../../kernels/rope_append.ts";
import { rmsNorm, rotate } from "../reference/rope_append.ts";
import { assertClose } from "../support/assert_close.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";
import { tableRow, uploadRows } from "../support/kv_fixture.ts";
import { Random } from "../support/random.ts";

const fixture = gpuFixture();

const CASES = [
  { heads: 4, kvHeads: 2, headDim: 64, rows: 1, bias: false, norms: false },
  { heads: 4, kvHeads: 2, headDim: 16, rows: 70, bias: true, norms: false },
  { heads: 7, kvHeads: 1, headDim: 128, rows: 3, bias: false, norms: true },
  { heads: 3, kvHeads: 3, headDim: 24, rows: 5, bias: true, norms: true },
  { heads: 2, kvHeads: 1, headDim: 40, rows: 2, bias: false, norms: false },
];

const EPS = 1e-5;

for (const shape of CASES) {
  const { heads, kvHeads, headDim, rows, bias, norms } = shape;
  const name = `${rows} rows of ${heads}/${kvHeads}×${headDim}${bias ? ", bias" : ""}${norms ? ", norms" : ""}`;
  Deno.test(`ropeAppend() equals plain loops: ${name}`, async () => {
    const random = new Random(1);
    const slots = heads + 2 * kvHeads;
    const qkv = random.normals(rows * slots * headDim);
    const biases = random.normals(slots * headDim);
    const weights = { q: random.normals(headDim), k: random.normals(headDim) };
    const rotations = Float32Array.from({ length: (rows * headDim) / 2 }, () => 6 * random.uniform())
      .reduce(
        (all, angle, i) => (all.set([Math.cos(angle), Math.sin(angle)], 2 * i), all),
        new Float32Array(rows * headDim),
      );
    // Row 1 belongs to another worker; the others go backwards from the third page of slot 1.
    const appendRows = Array.from({ length: rows }, (_, row) => row === 1 ? undefined : 140 - row);
    const table = Uint32Array.from([9, 9, 9, 9, 2, 5, 0, 9]);
    const [maxPages, pages] = [4, 6];
    const pool = [pages, kvHeads, PAGE_ROWS, headDim];
    const kv = { k: fixture.zeros("f16", pool), v: fixture.zeros("f16", pool) };
    const q = fixture.zeros("f32", [rows, heads, headDim]);
    ropeAppend(fixture.commands, {
      shape: { heads, kvHeads, headDim },
      rows,
      qkv: fixture.upload("f32", qkv, [rows, slots * headDim]),
      ...(bias ? { bias: fixture.upload("f32", biases, [slots * headDim]) } : {}),
      ...(norms
        ? {
          norms: {
            q: fixture.upload("f32", weights.q, [headDim]),
            k: fixture.upload("f32", weights.k, [headDim]),
            eps: EPS,
          },
        }
        : {}),
      rotations: fixture.upload("f32", rotations, [rows, headDim / 2, 2]),
      rowTable: uploadRows(
        fixture,
        appendRows.map((appendRow, row) => tableRow({ kvLimit: row, sequenceSlot: 1, appendRow })),
      ),
      kv,
      pageTable: fixture.upload("u32", table, [2, maxPages]),
      maxPages,
      q,
    });
    const expected = {
      q: [] as number[],
      k: new Float32Array(pages * kvHeads * PAGE_ROWS * headDim),
      v: new Float32Array(pages * kvHeads * PAGE_ROWS * headDim),
    };
    for (let row = 0; row < rows; row++) {
      const turn = rotations.subarray(row * headDim, (row + 1) * headDim);
      for (let slot = 0; slot < slots; slot++) {
        const at = (row * slots + slot) * headDim;
        let head = [...qkv.subarray(at, at + headDim)];
        if (bias) head = head.map((x, i) => x + (biases[slot * headDim + i] ?? NaN));
        const isQ = slot < heads;
        if (slot < heads + kvHeads) {
          if (norms) head = rmsNorm(head, isQ ? weights.q : weights.k, EPS);
          head = rotate(head, turn);
        }
        if (isQ) expected.q.push(...head);
        const local = appendRows[row];
        if (isQ || local === undefined) continue;
        const page = table[maxPages + Math.floor(local / PAGE_ROWS)] ?? NaN;
        const to = ((page * kvHeads + ((slot - heads) % kvHeads)) * PAGE_ROWS + local % PAGE_ROWS) * headDim;
        expected[slot < heads + kvHeads ? "k" : "v"].set(head, to);
      }
    }
    // f32 arithmetic on q, f16 storage of k and v.
    assertClose(await fixture.floats(q), expected.q, { nmse: 1e-12 });
    const [k, v] = await fixture.gpu.read([{ tensor: kv.k }, { tensor: kv.v }]);
    assert.ok(k !== undefined && v !== undefined);
    const size = expected.k.length;
    assertClose(fromHalf(new Uint16Array(k.buffer, 0, size)), expected.k, { nmse: 1e-6 });
    assertClose(fromHalf(new Uint16Array(v.buffer, 0, size)), expected.v, { nmse: 1e-6 });
  });
}
