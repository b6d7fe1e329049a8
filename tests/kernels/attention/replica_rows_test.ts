import assert from "node:assert/strict";
import { copyReplicaRows, REPLICA_ENTRY_WORDS } from "../../../kernels/attention/replica_rows.ts";
import { toHalf } from "../../../kernels/half.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { kvFixture } from "../../support/kv_fixture.ts";

const fixture = gpuFixture();

for (const [kvHeads, headDim, rows] of [[2, 64, 7], [3, 8, 130], [1, 128, 0]] as const) {
  Deno.test(`copyReplicaRows() brings rows to other pages bit for bit, ${kvHeads} heads of ${headDim}, ${rows} rows`, async () => {
    const shape = { heads: kvHeads, kvHeads, headDim };
    const from = kvFixture(fixture, shape, { slots: 2, length: 150, seed: headDim });
    const to = kvFixture(fixture, shape, { slots: 2, length: 150, seed: headDim + 1 });
    const layers = 3;
    const entry = (i: number) => ({ slot: i % 2, head: i % kvHeads, source: 7 * i % 150, target: i % 150 });
    const words = (row: "source" | "target") =>
      Uint32Array.from(
        Array.from({ length: rows }, (_, i) => entry(i)).flatMap((each) => [each.slot, each.head, each[row], 0]),
      );
    const transit = fixture.zeros("u32", [Math.max(1, rows), layers, 2, headDim / 2]);
    const entries = (row: "source" | "target") => fixture.upload("u32", words(row), [rows, REPLICA_ENTRY_WORDS]);
    const common = { shape, layers, layer: 1, transit };
    const all = { first: 0, rows };
    copyReplicaRows(fixture.commands, {
      ...common,
      ...from.paged,
      direction: "pack",
      range: all,
      entries: entries("source"),
    });
    // The first row stays where it was.
    const range = { first: Math.min(1, rows), rows: Math.max(0, rows - 1) };
    copyReplicaRows(fixture.commands, {
      ...common,
      ...to.paged,
      direction: "unpack",
      range,
      entries: entries("target"),
    });
    const packed = new Uint16Array((await fixture.words(transit)).buffer);
    for (let i = 0; i < rows; i++) {
      const { slot, head, source } = entry(i);
      const at = (i * layers + 1) * 2 * headDim;
      assert.deepEqual([...packed.slice(at, at + headDim)], [...toHalf(from.k(slot, source, head))]);
      assert.deepEqual([...packed.slice(at + headDim, at + 2 * headDim)], [...toHalf(from.v(slot, source, head))]);
    }
    const pool = new Uint16Array(
      (await fixture.words({ ...to.paged.kv.v, dtype: "u32", shape: [to.paged.kv.v.byteLength / 4] })).buffer,
    );
    const table = await fixture.words(to.paged.pageTable);
    for (let i = 1; i < rows; i++) {
      const { slot, head, source, target } = entry(i);
      const page = table[slot * to.paged.maxPages + (target >> 6)] ?? NaN;
      const at = ((page * kvHeads + head) * 64 + target % 64) * headDim;
      assert.deepEqual([...pool.slice(at, at + headDim)], [...toHalf(from.v(slot, source, head))]);
    }
  });
}

Deno.test("copyReplicaRows() refuses a layer that transit does not have", () => {
  const shape = { heads: 1, kvHeads: 1, headDim: 8 };
  const { paged } = kvFixture(fixture, shape, { slots: 1, length: 1, seed: 1 });
  const transit = fixture.zeros("u32", [1, 1, 2, 4]);
  const entries = fixture.zeros("u32", [1, REPLICA_ENTRY_WORDS]);
  const rows = {
    ...paged,
    shape,
    direction: "pack",
    range: { first: 0, rows: 1 },
    entries,
    transit,
    layers: 1,
  } as const;
  assert.throws(() => copyReplicaRows(fixture.commands, { ...rows, layer: 1 }), { code: "invalid_shape" });
});
