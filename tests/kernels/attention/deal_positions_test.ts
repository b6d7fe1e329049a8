/** What slices hold of a sequence, both ways: scores of slices pooled at the positions of the sequence, and chosen ones dealt back. */

import assert from "node:assert/strict";
import { dealPositions, pagePlace } from "../../../kernels/attention/deal_positions.ts";
import { poolScores } from "../../../kernels/attention/pool_scores.ts";
import { NO_POSITION } from "../../../kernels/attention/row_table.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { tableRow, uploadRows } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

const [SETS, STRIDE, MAX_PAGES, PAGE] = [2, 320, 64, 64];

/** Owners of each page of two sequences, as two slices hold them. */
const OWNERS = [[0, 1, 1, 0, 1], [1, 0, 0, 1, 0]];

/** Rows of either sequence; the first is not part of a call. */
const ROWS = [
  tableRow({ kvLimit: 5 }),
  tableRow({ kvLimit: 300, selected: 290, sequenceSlot: 0 }),
  tableRow({ kvLimit: 170, selected: 40, sequenceSlot: 1 }),
  tableRow({ kvLimit: 3, selected: 40, sequenceSlot: 1 }),
];
const CALLED = ROWS.slice(1);

/** Where a position lies: its slice, and its local row there. */
function placeOf(slot: number, position: number): { readonly slice: number; readonly row: number } {
  const owners = OWNERS[slot] ?? [];
  const page = Math.floor(position / PAGE);
  const slice = owners[page] ?? NaN;
  const local = owners.slice(0, page).filter((owner) => owner === slice).length;
  return { slice, row: local * PAGE + position % PAGE };
}

/** A table of u32 [sequences, MAX_PAGES]. */
function pageTable(entriesOf: (owners: readonly number[]) => readonly number[]) {
  const words = new Uint32Array(OWNERS.length * MAX_PAGES);
  for (const [slot, owners] of OWNERS.entries()) words.set(entriesOf(owners), slot * MAX_PAGES);
  return fixture.upload("u32", words, [OWNERS.length, MAX_PAGES]);
}

Deno.test("dealPositions() gives each slice the chosen rows that it holds, in order, and marks what is left", async () => {
  const random = new Random(3);
  const lists = CALLED.map(({ kvLimit, selected }) =>
    Array.from({ length: SETS }, (_, set) => {
      const all = Array.from({ length: kvLimit }, (_, position) => position);
      while (all.length > Math.min(selected, kvLimit)) all.splice(random.integer(all.length), 1);
      // Of an adaptive row: fewer than its budget.
      return set === 1 ? all.slice(0, Math.ceil(all.length / 3)) : all;
    })
  );
  const positions = new Uint32Array(CALLED.length * SETS * STRIDE).fill(NO_POSITION);
  for (const [at, list] of lists.flat().entries()) positions.set(list, at * STRIDE);
  const places = pageTable((owners) => owners.map((_, page) => placesOf(owners, page)));
  for (const slice of [0, 1]) {
    const dealt = fixture.zeros("u32", [CALLED.length, SETS, STRIDE]);
    dealPositions(fixture.commands, {
      firstRow: 1,
      rows: CALLED.length,
      rowTable: uploadRows(fixture, ROWS),
      places,
      maxPages: MAX_PAGES,
      positions: fixture.upload("u32", positions, [CALLED.length, SETS, STRIDE]),
      sets: SETS,
      stride: STRIDE,
      slice,
      dealt,
      dealtStride: STRIDE,
    });
    fixture.commands.submit();
    const actual = await fixture.gpu.readU32({ tensor: dealt });
    for (const [at, list] of lists.flat().entries()) {
      const slot = CALLED[Math.floor(at / SETS)]?.sequenceSlot ?? NaN;
      const here = list.map((position) => placeOf(slot, position)).filter((place) => place.slice === slice);
      const expected = [...here.map(({ row }) => row), ...new Array(STRIDE - here.length).fill(NO_POSITION)];
      assert.deepEqual([...actual.subarray(at * STRIDE, (at + 1) * STRIDE)], expected);
    }
  }
});

function placesOf(owners: readonly number[], page: number): number {
  const owner = owners[page] ?? NaN;
  return pagePlace(owner, owners.slice(0, page).filter((other) => other === owner).length);
}

Deno.test("poolScores() of all slices, put in order, are those of one that holds everything", async () => {
  const shape = { heads: 4, kvHeads: 2 };
  const random = new Random(5);
  const scores = random.normals(CALLED.length * shape.heads * STRIDE, 3);
  const lse = fixture.upload("f32", random.normals(ROWS.length * shape.heads), [ROWS.length, shape.heads]);
  const rows = { shape, firstRow: 1, rows: CALLED.length, scoreStride: STRIDE, lse, sets: SETS, stride: STRIDE };
  const size = [CALLED.length, shape.heads, STRIDE];
  const pool = async (calls: readonly Omit<Parameters<typeof poolScores>[1], keyof typeof rows | "values">[]) => {
    const values = fixture.zeros("f32", [CALLED.length, SETS, STRIDE]);
    for (const call of calls) poolScores(fixture.commands, { ...rows, ...call, values });
    fixture.commands.submit();
    return await fixture.gpu.readF32({ tensor: values });
  };
  const forced = { sinks: 0, recent: 0 };
  const rowTable = uploadRows(fixture, ROWS.map((row) => ({ ...row, ...forced })));
  const whole = await pool([{ scores: fixture.upload("f32", scores, size), rowTable, longest: 300 }]);
  const slices = [0, 1].map((slice) => {
    const own = new Float32Array(scores.length);
    const limits = CALLED.map(({ sequenceSlot, kvLimit }, row) => {
      let limit = 0;
      for (let position = 0; position < kvLimit; position++) {
        const place = placeOf(sequenceSlot, position);
        if (place.slice !== slice) continue;
        limit = place.row + 1;
        for (let head = 0; head < shape.heads; head++) {
          const from = (row * shape.heads + head) * STRIDE;
          own[from + place.row] = scores[from + position] ?? NaN;
        }
      }
      return limit;
    });
    const table = ROWS.map((row, i) => ({ ...row, ...forced, kvLimit: limits[i - 1] ?? 0, sequenceSlot: 9 }));
    const pages = pageTable((owners) => owners.flatMap((owner, page) => owner === slice ? [page] : []));
    const order = { rowTable, pages, maxPages: MAX_PAGES };
    return { scores: fixture.upload("f32", own, size), rowTable: uploadRows(fixture, table), longest: 300, order };
  });
  assert.deepEqual(await pool(slices), whole);
});
