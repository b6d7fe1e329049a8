import assert from "node:assert/strict";
import { poolScores } from "../../../kernels/attention/pool_scores.ts";
import { FORCED_LEAST } from "../../../kernels/attention/mass.ts";
import { setsOf, type TableRow } from "../../../kernels/attention/row_table.ts";
import { pooled } from "../../reference/pool_scores.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { tableRow, uploadRows } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

/** The first row is not part of the call. */
const ROWS: readonly TableRow[] = [
  tableRow({ kvLimit: 1 }),
  tableRow({ kvLimit: 300, recent: 16, setShape: "kv_head" }),
  tableRow({ kvLimit: 257, recent: 5, setShape: "all_heads" }),
  tableRow({ kvLimit: 90, recent: 16, setShape: "query_head" }),
  tableRow({ kvLimit: 200, kvFrom: 101, recent: 8 }),
  tableRow({ kvLimit: 120, recent: 4, setShape: "query_head", coverage: 1 }),
  tableRow({ kvLimit: 130, recent: 4, coverage: 1 }),
  tableRow({ kvLimit: 0 }),
];
const [FIRST_ROW, LONGEST, SCORE_STRIDE, STRIDE] = [1, 300, 301, 303];
const CALLED = ROWS.slice(FIRST_ROW);

/** f32 exponentials. */
const NMSE = 1e-11;

for (const shape of [{ heads: 4, kvHeads: 2 }, { heads: 7, kvHeads: 1 }, { heads: 3, kvHeads: 3 }]) {
  Deno.test(`poolScores() equals plain loops for all set shapes: ${shape.heads}/${shape.kvHeads} heads`, async () => {
    const random = new Random(1);
    const scores = random.normals(CALLED.length * shape.heads * SCORE_STRIDE, 3);
    const lse = random.normals(ROWS.length * shape.heads).map((value) => value + 8);
    const actual = await run(shape, { scores, lse });
    CALLED.forEach((row, index) => {
      const expected = reference(shape, { scores, lse }, index);
      for (let set = 0; set < shape.heads; set++) {
        const at = (index * shape.heads + set) * STRIDE;
        // A set that the row's shape does not have is left alone.
        const values = expected[set] ?? new Array<number>(row.kvLimit).fill(0);
        const own = [...actual.subarray(at, at + row.kvLimit)];
        const isForced = (value: number) => value >= FORCED_LEAST;
        const isHidden = (value: number) => value === Math.fround(-1e30) || value === -1e30;
        assert.deepEqual(own.map(isForced), values.map(isForced));
        assert.deepEqual(own.map(isHidden), values.map(isHidden));
        const forced = (all: readonly number[]) => all.filter(isForced).map((value) => value / 2 ** 64);
        const free = (all: readonly number[]) => all.map((value) => isForced(value) || isHidden(value) ? 0 : value);
        assertClose(forced(own), forced(values), { nmse: NMSE });
        assertClose(free(own), free(values), { nmse: NMSE });
      }
    });
  });
}

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
}

interface Inputs {
  readonly scores: Float32Array<ArrayBuffer>;
  readonly lse: Float32Array<ArrayBuffer>;
}

async function run(shape: Shape, { scores, lse }: Inputs): Promise<Float32Array> {
  const { heads } = shape;
  const values = fixture.zeros("f32", [CALLED.length, heads, STRIDE]);
  poolScores(fixture.commands, {
    shape,
    firstRow: FIRST_ROW,
    rows: CALLED.length,
    scores: fixture.upload("f32", scores, [CALLED.length, heads, SCORE_STRIDE]),
    scoreStride: SCORE_STRIDE,
    lse: fixture.upload("f32", lse, [ROWS.length, heads]),
    rowTable: uploadRows(fixture, ROWS),
    longest: LONGEST,
    values,
    sets: heads,
    stride: STRIDE,
  });
  return await fixture.floats(values);
}

/** The values of every set that a row has. */
function reference(shape: Shape, { scores, lse }: Inputs, index: number): number[][] {
  const { heads } = shape;
  const row = CALLED[index] ?? tableRow({ kvLimit: 0 });
  const own = Array.from({ length: heads }, (_, head) => {
    const at = (index * heads + head) * SCORE_STRIDE;
    return scores.subarray(at, at + row.kvLimit);
  });
  const at = (FIRST_ROW + index) * heads;
  if (row.setShape === "query_head") {
    const weigh = (value: number, head: number) => row.coverage ? Math.exp(value - (lse[at + head] ?? NaN)) : value;
    return own.map((values, head) => Array.from(values, (value) => weigh(value, head)));
  }
  const group = heads / setsOf(row.setShape, shape);
  const entry = { ...row, scores: own, lse: [...lse.subarray(at, at + heads)] };
  return Array.from({ length: heads / group }, (_, set) => pooled(entry, set * group, group));
}
