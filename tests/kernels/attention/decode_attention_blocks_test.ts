import assert from "node:assert/strict";
import { decodeAttention } from "../../../kernels/attention/decode_attention.ts";
import type { HeadShape } from "../../../kernels/attention/kv_pages.ts";
import { gateCases } from "../../support/gate_cases.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { tableRow } from "../../support/kv_fixture.ts";
import { consecutiveRows } from "./attention_cases.ts";
import { LENGTH, mixed, prepareBlocks } from "./decode_blocks.ts";

const fixture = gpuFixture();

/** Four lanes a K row (two, in the last shape) and one; G = 1, 2 and 4, and shares of a larger G. */
const SHAPES: readonly HeadShape[] = [
  { heads: 4, kvHeads: 2, headDim: 64 },
  { heads: 8, kvHeads: 2, headDim: 32 },
  // A share of the heads of the usual models, which differ in nothing but their number.
  gateCases({ heads: 8, kvHeads: 2, headDim: 128 }, { heads: 32, kvHeads: 8, headDim: 128 }),
  { heads: 6, kvHeads: 6, headDim: 64 },
  { heads: 7, kvHeads: 1, headDim: 24 },
  { heads: 4, kvHeads: 2, headDim: 48 },
];

const WINDOWS = gateCases([undefined, 48], [undefined, 1, 48, 300]);

for (const shape of SHAPES) {
  for (const tuning of ["software", "hardware"] as const) {
    const { heads, kvHeads, headDim } = shape;
    Deno.test(`decodeAttention() gives rows of a block the bits of rows alone: ${heads}/${kvHeads} of ${headDim}, ${tuning}`, async () => {
      for (const window of WINDOWS) {
        const { rows, blocks } = mixed(window);
        const { states } = prepareBlocks(fixture, shape, rows);
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
  const { args, states } = prepareBlocks(fixture, shape, rows);
  const together = await states({ blocks });
  for (const row of rows.keys()) decodeAttention(fixture.commands, { ...args, firstRow: row, rows: 1 });
  assert.deepEqual(new Uint32Array((await fixture.floats(args.out.o)).buffer), together.o);
  const scores = fixture.zeros("f32", [rows.length, shape.heads, LENGTH]);
  assert.deepEqual(await states({ blocks, scores: { scores, stride: LENGTH } }), together);
  for (const scratchRows of [1, 3, 5]) {
    assert.deepEqual(
      await prepareBlocks(fixture, shape, rows, { scratchRows }).states({ blocks }),
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
  const { states } = prepareBlocks(fixture, { heads: 4, kvHeads: 2, headDim: 16 }, rows);
  assert.deepEqual(await states({ blocks }), await states({}));
});

Deno.test("decodeAttention() computes the rows of a block in a call that begins behind others", async () => {
  const rows = [tableRow({ kvLimit: 9 }), tableRow({ kvLimit: 700 }), ...consecutiveRows({ from: 500, rows: 15 })];
  const { states } = prepareBlocks(fixture, { heads: 4, kvHeads: 2, headDim: 64 }, rows);
  const call = { firstRow: 1, rows: 13 };
  assert.deepEqual(await states({ ...call, blocks: [{ first: 3, rows: 10 }] }), await states(call));
});

Deno.test("decodeAttention() refuses blocks that overlap or leave the call", () => {
  const { args } = prepareBlocks(fixture, { heads: 4, kvHeads: 2, headDim: 64 }, consecutiveRows({ from: 5, rows: 6 }));
  for (const blocks of [[{ first: 4, rows: 3 }], [{ first: 0, rows: 3 }, { first: 2, rows: 2 }]]) {
    assert.throws(() => decodeAttention(fixture.commands, { ...args, blocks }), /Cannot dispatch attention: a block/);
  }
});
