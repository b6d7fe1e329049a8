import assert from "node:assert/strict";
import { poolScores } from "../../kernels/pool_scores.ts";
import { setsOf } from "../../kernels/row_table.ts";
import { pooled } from "../reference/pool_scores.ts";
import { assertClose } from "../support/assert_close.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";
import { tableRow, uploadRows } from "../support/kv_fixture.ts";
import { Random } from "../support/random.ts";

const fixture = gpuFixture();

for (const shape of [{ heads: 4, kvHeads: 2 }, { heads: 7, kvHeads: 1 }, { heads: 3, kvHeads: 3 }]) {
  Deno.test(`poolScores() equals plain loops for all set shapes: ${shape.heads}/${shape.kvHeads} heads`, async () => {
    const random = new Random(1);
    const { heads } = shape;
    const rows = [
      tableRow({ kvLimit: 1 }),
      tableRow({ kvLimit: 300, recent: 16, setShape: "kv_head" }),
      tableRow({ kvLimit: 257, recent: 5, setShape: "all_heads" }),
      tableRow({ kvLimit: 90, recent: 16, setShape: "query_head" }),
      tableRow({ kvLimit: 200, kvFrom: 101, recent: 8 }),
      tableRow({ kvLimit: 0 }),
    ];
    const [firstRow, scoreStride, stride] = [1, 301, 303];
    const called = rows.slice(firstRow);
    const scores = random.normals(called.length * heads * scoreStride, 3);
    const lse = random.normals(rows.length * heads).map((value) => value + 8);
    const values = fixture.zeros("f32", [called.length, heads, stride]);
    poolScores(fixture.commands, {
      shape,
      firstRow,
      rows: called.length,
      scores: fixture.upload("f32", scores, [called.length, heads, scoreStride]),
      scoreStride,
      lse: fixture.upload("f32", lse, [rows.length, heads]),
      rowTable: uploadRows(fixture, rows),
      longest: 300,
      values,
      sets: heads,
      stride,
    });
    const actual = await fixture.floats(values);
    called.forEach((row, index) => {
      const own = (head: number) => {
        const at = (index * heads + head) * scoreStride;
        return scores.subarray(at, at + row.kvLimit);
      };
      const sets = setsOf(row.setShape, shape);
      for (let set = 0; set < heads; set++) {
        const at = (index * heads + set) * stride;
        const values = actual.subarray(at, at + row.kvLimit);
        if (set >= sets) assert.ok(values.every((value) => value === 0));
        else if (row.setShape === "query_head") assert.deepEqual([...values], [...own(set)]);
        else {
          const head = (firstRow + index) * heads;
          const entry = {
            ...row,
            scores: Array.from({ length: heads }, (_, h) => own(h)),
            lse: [...lse.subarray(head, head + heads)],
          };
          const group = heads / sets;
          const expected = pooled(entry, set * group, group);
          const free = expected.map((value, i) => Math.abs(value) < 1e20 ? i : undefined).filter((i) =>
            i !== undefined
          );
          values.forEach((value, i) => assert.equal(Math.sign(value), Math.sign(expected[i] ?? NaN)));
          assert.deepEqual(
            [...values].flatMap((value, i) => Math.abs(value) < 1e20 ? [] : [i]),
            expected.flatMap((value, i) => Math.abs(value) < 1e20 ? [] : [i]),
          );
          // f32 exponentials.
          assertClose(free.map((i) => values[i] ?? NaN), free.map((i) => expected[i] ?? NaN), { nmse: 1e-11 });
        }
      }
    });
  });
}
