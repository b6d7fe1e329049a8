import assert from "node:assert/strict";
import { type DecodeAttention, decodeAttention, scratchShape } from "../../../kernels/attention/decode_attention.ts";
import type { HeadShape } from "../../../kernels/attention/kv_pages.ts";
import type { RowRange } from "../../../kernels/attention/row_blocks.ts";
import type { TableRow } from "../../../kernels/attention/row_table.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { kvFixture, tableRow, uploadRows } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";
import { consecutiveRows } from "./attention_cases.ts";

const fixture = gpuFixture();

/** Four lanes a K row (two, in the last shape) and one; G = 1, 2 and 4, and shares of a larger G. */
const SHAPES: readonly HeadShape[] = [
  { heads: 4, kvHeads: 2, headDim: 64 },
  { heads: 8, kvHeads: 2, headDim: 32 },
  { heads: 32, kvHeads: 8, headDim: 128 },
  { heads: 6, kvHeads: 6, headDim: 64 },
  { heads: 7, kvHeads: 1, headDim: 24 },
  { heads: 4, kvHeads: 2, headDim: 48 },
];

/** Where blocks of 1 … 9 rows begin: at and around the borders of splits, and at the start, where some rows see nothing. */
const STARTS = [300, 254, 509, 255, 252, 507, 256, 1095, -2] as const;
const SEQUENCES = 3;
const LENGTH = 1110;

interface Call {
  readonly rows: readonly TableRow[];
  readonly blocks: readonly RowRange[];
}

/** Spans of several sequences, each followed by single rows of the others. */
function mixed(window: number | undefined): Call {
  const rows: TableRow[] = [];
  const blocks: RowRange[] = [];
  for (const [i, from] of STARTS.entries()) {
    const span = consecutiveRows({ from, rows: i + 1, window }).map((row) => ({
      ...row,
      sequenceSlot: i % SEQUENCES,
      kvLimit: Math.max(0, row.kvLimit),
    }));
    blocks.push({ first: rows.length, rows: span.length });
    rows.push(...span);
    for (const ahead of [1, 2].slice(i % 3)) {
      rows.push(tableRow({ sequenceSlot: (i + ahead) % SEQUENCES, kvLimit: 1 + (i * 257) % LENGTH }));
    }
  }
  return { rows, blocks };
}

/** The arguments of a call, without blocks; `states` gives their result. */
function prepare(shape: HeadShape, rows: readonly TableRow[], { scratchRows = rows.length } = {}) {
  const { heads, headDim } = shape;
  const { paged } = kvFixture(fixture, shape, { slots: SEQUENCES, length: LENGTH, seed: 3 });
  const sizes = scratchShape(shape, { rows: scratchRows, longest: LENGTH });
  const args: DecodeAttention = {
    shape,
    ...paged,
    firstRow: 0,
    rows: rows.length,
    q: fixture.upload("f32", new Random(4).normals(rows.length * heads * headDim), [rows.length, heads, headDim]),
    rowTable: uploadRows(fixture, rows),
    longest: LENGTH,
    scale: 1 / Math.sqrt(headDim),
    scratch: { o: fixture.zeros("f32", sizes.o), lse: fixture.zeros("f32", sizes.lse) },
    out: { o: fixture.zeros("f32", [rows.length, heads, headDim]), lse: fixture.zeros("f32", [rows.length, heads]) },
  };
  const { out } = args;
  const wiped = { o: new Float32Array(out.o.byteLength / 4).fill(NaN), lse: new Float32Array(out.lse.byteLength / 4) };
  const states = async (how: Partial<DecodeAttention>) => {
    fixture.gpu.write(out.o, wiped.o);
    fixture.gpu.write(out.lse, wiped.lse.fill(NaN));
    decodeAttention(fixture.commands, { ...args, ...how });
    const bits = (floats: Float32Array<ArrayBuffer>) => new Uint32Array(floats.buffer);
    return { o: bits(await fixture.floats(out.o)), lse: bits(await fixture.floats(out.lse)) };
  };
  return { args, states };
}

for (const shape of SHAPES) {
  for (const tuning of ["software", "hardware"] as const) {
    const { heads, kvHeads, headDim } = shape;
    Deno.test(`decodeAttention() gives rows of a block the bits of rows alone: ${heads}/${kvHeads} of ${headDim}, ${tuning}`, async () => {
      for (const window of [undefined, 1, 48, 300]) {
        const { rows, blocks } = mixed(window);
        const { states } = prepare(shape, rows);
        const alone = await states({ tuning });
        for (const rowsTogether of [2, 4]) {
          assert.deepEqual(
            await states({ tuning, blocks, rowsTogether }),
            alone,
            `${rowsTogether} rows, window ${window}`,
          );
        }
      }
    });
  }
}

Deno.test("decodeAttention() gives rows of a block the same bits one call a row, in many passes, and with scores", async () => {
  const { rows, blocks } = mixed(undefined);
  const shape = { heads: 4, kvHeads: 2, headDim: 64 };
  const { args, states } = prepare(shape, rows);
  const together = await states({ blocks });
  for (const row of rows.keys()) decodeAttention(fixture.commands, { ...args, firstRow: row, rows: 1 });
  assert.deepEqual(new Uint32Array((await fixture.floats(args.out.o)).buffer), together.o);
  const scores = fixture.zeros("f32", [rows.length, shape.heads, LENGTH]);
  assert.deepEqual(await states({ blocks, scores: { scores, stride: LENGTH } }), together);
  for (const scratchRows of [1, 3, 5]) {
    assert.deepEqual(
      await prepare(shape, rows, { scratchRows }).states({ blocks }),
      together,
      `${scratchRows} rows a pass`,
    );
  }
});

Deno.test("decodeAttention() serves more blocks than one dispatch lists", async () => {
  const rows = Array.from({ length: 40 }, (_, i) => [
    ...consecutiveRows({ from: 250 + i, rows: 3 }),
    tableRow({ kvLimit: i }),
  ]).flat();
  const blocks = Array.from({ length: 40 }, (_, i) => ({ first: 4 * i, rows: 3 }));
  const { states } = prepare({ heads: 4, kvHeads: 2, headDim: 16 }, rows);
  assert.deepEqual(await states({ blocks }), await states({}));
});

Deno.test("decodeAttention() computes the rows of a block in a call that begins behind others", async () => {
  const rows = [tableRow({ kvLimit: 9 }), tableRow({ kvLimit: 700 }), ...consecutiveRows({ from: 500, rows: 15 })];
  const { states } = prepare({ heads: 4, kvHeads: 2, headDim: 64 }, rows);
  const call = { firstRow: 1, rows: 13 };
  assert.deepEqual(await states({ ...call, blocks: [{ first: 3, rows: 10 }] }), await states(call));
});

Deno.test("decodeAttention() refuses blocks that overlap or leave the call", () => {
  const { args } = prepare({ heads: 4, kvHeads: 2, headDim: 64 }, consecutiveRows({ from: 5, rows: 6 }));
  for (const blocks of [[{ first: 4, rows: 3 }], [{ first: 0, rows: 3 }, { first: 2, rows: 2 }]]) {
    assert.throws(() => decodeAttention(fixture.commands, { ...args, blocks }), /Cannot dispatch attention: a block/);
  }
});
