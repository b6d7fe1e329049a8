import assert from "node:assert/strict";
import { setsOf, type TableRow } from "../../../kernels/attention/row_table.ts";
import { topK } from "../../../kernels/attention/top_k.ts";
import { bestPositions } from "../../reference/top_k.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { tableRow, uploadRows } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

/** Values by distribution; a select must not care. */
const DISTRIBUTIONS: Record<string, (random: Random, position: number) => number> = {
  normal: (random) => random.normal(),
  "heavily tied": (random) => random.integer(5) - 2,
  "all equal": () => -0.25,
  probabilities: (random) => Math.exp(8 * random.normal() - 20),
  "both zeros": (random) => [0, -0, -1][random.integer(3)] ?? 0,
  "few exponents": (random) => -3 + random.uniform() / 1000,
  "forced and hidden": (random, position) =>
    position % 17 === 0 ? 1e30 : position % 13 === 0 ? -1e30 : random.uniform(),
};

const LENGTHS = [
  { n: 1, k: 1 },
  { n: 7, k: 3 },
  { n: 255, k: 0 },
  { n: 256, k: 256 },
  { n: 300, k: 4096 },
  { n: 4096, k: 63 },
  { n: 4097, k: 64 },
  { n: 20_000, k: 511 },
];

/** Some lengths are a multiple of it, some are less. */
const CHUNK = 1024;

for (const [name, draw] of Object.entries(DISTRIBUTIONS)) {
  Deno.test(`topK() equals a sort on ${name} values of all lengths`, async () => {
    const random = new Random(1);
    const stride = 20_003;
    const keptStride = 512;
    const rows: TableRow[] = LENGTHS.map(({ n, k }) => tableRow({ kvLimit: n, selected: k }));
    const values = Float32Array.from({ length: rows.length * stride }, (_, i) => draw(random, i % stride));
    const kept = await select({ rows, values, stride, sets: 1, keptStride });
    assert.deepEqual(await select({ rows, values, stride, sets: 1, keptStride, chunk: CHUNK }), kept, "by chunks");
    rows.forEach(({ kvLimit, selected }, row) => {
      const own = values.subarray(row * stride, row * stride + kvLimit);
      const expected = bestPositions(own, Math.min(selected, kvLimit));
      const at = row * keptStride;
      assert.deepEqual([...kept.positions.subarray(at, at + expected.length)], expected, `n ${kvLimit}, k ${selected}`);
      assert.deepEqual(
        [...kept.values.subarray(at, at + expected.length)],
        expected.map((position) => own[position]),
      );
      assert.ok(kept.positions.subarray(at + expected.length, at + keptStride).every((word) => word === 0));
    });
  });
}

Deno.test("topK() selects from a million values", async () => {
  const random = new Random(2);
  const n = 1_000_003;
  const values = random.normals(n);
  const kept = await select({
    rows: [tableRow({ kvLimit: n, selected: 4096 })],
    values,
    stride: n,
    sets: 1,
    keptStride: 4096,
  });
  assert.deepEqual([...kept.positions], bestPositions(values, 4096));
});

Deno.test("topK() selects for the sets that a row's shape has, and no others", async () => {
  const random = new Random(3);
  const shape = { heads: 4, kvHeads: 2 };
  const rows = (["kv_head", "query_head", "all_heads"] as const).map((setShape) =>
    tableRow({ kvLimit: 90, selected: 20, setShape })
  );
  const values = random.normals(rows.length * 4 * 100);
  const call = { rows, values, stride: 100, sets: 4, keptStride: 20, ...shape };
  const kept = await select(call);
  assert.deepEqual(await select({ ...call, chunk: 40 }), kept, "by chunks");
  rows.forEach(({ setShape }, row) => {
    for (let set = 0; set < 4; set++) {
      const at = (row * 4 + set) * 100;
      const expected = set < setsOf(setShape, shape)
        ? bestPositions(values.subarray(at, at + 90), 20)
        : new Array(20).fill(0);
      const from = (row * 4 + set) * 20;
      assert.deepEqual([...kept.positions.subarray(from, from + 20)], expected, `${setShape}, set ${set}`);
    }
  });
});

interface Select {
  readonly rows: readonly TableRow[];
  readonly values: Float32Array<ArrayBuffer>;
  readonly stride: number;
  readonly sets: number;
  readonly keptStride: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly chunk?: number;
}

async function select({ rows, values, stride, sets, keptStride, heads = 1, kvHeads = 1, chunk }: Select) {
  const positions = fixture.zeros("u32", [rows.length, sets, keptStride]);
  const keptValues = fixture.zeros("f32", [rows.length, sets, keptStride]);
  topK(fixture.commands, {
    heads,
    kvHeads,
    firstRow: 0,
    rows: rows.length,
    rowTable: uploadRows(fixture, rows),
    values: fixture.upload("f32", values, [rows.length, sets, stride]),
    stride,
    sets,
    positions,
    keptValues,
    keptStride,
    scratch: fixture.scratch,
    ...(chunk !== undefined && { chunk }),
  });
  return { positions: await fixture.words(positions), values: await fixture.floats(keptValues) };
}
