/** How spans become rows: packing, order, runs, the row table, and which rows need logits. */

import assert from "node:assert/strict";

import { planBatches } from "../../../engine/pass/batch_plan.ts";
import type { RowBatch } from "../../../engine/row_batch.ts";
import { PageMap, type PageShare } from "../../../engine/page_map.ts";
import type { SequenceState } from "../../../engine/kv/sequences.ts";
import type { SetShape, Span } from "../../../engine/span.ts";
import { ROW_WORDS } from "../../../kernels/attention/row_table.ts";
import { decode, open, prefill } from "../../support/step_parts.ts";

const ALONE = { index: 0, map: new PageMap([1000]) };

const SHAPES: readonly SetShape[] = ["all_heads", "query_head", "kv_head"];

/** Sequences 0 to 99 in slots 100 to 199; the shape of sequence i is SHAPES[i % 3], its budget 16 + i. */
const SEQUENCES = new Map(Array.from({ length: 100 }, (_, i): [number, SequenceState] => {
  const sparse = { budget: 16 + i, heads: SHAPES[i % 3] ?? "kv_head" };
  return [i, { open: open(i, { sparse }), slot: 100 + i, physicalPages: [], tokens: [] }];
}));

function plan(
  spans: readonly Span[],
  changes: { window?: number; maxScores?: number; share?: PageShare; matrix?: boolean } = {},
): RowBatch[] {
  return planBatches(spans, { sequences: SEQUENCES, window: undefined, maxScores: 1e9, share: ALONE, ...changes });
}

function row(batch: RowBatch | undefined, index: number): number[] {
  return [...batch?.table.subarray(index * ROW_WORDS, (index + 1) * ROW_WORDS) ?? []];
}

const sparse = (sequence: number, from: number) => decode(sequence, from, 1, { attention: "sparse" });

Deno.test("planBatches() puts decode rows before prefill, in products of their own", () => {
  const batches = plan([prefill(0, 0, 3), decode(1, 9, 1), prefill(2, 64, 2), decode(3, 5, 2)]);
  assert.deepEqual(batches.map(({ product, rows }) => [product, rows]), [["vector", 3], ["tiled", 5]]);
  assert.deepEqual(batches.map(({ positions }) => [...positions]), [[9, 5, 6], [0, 1, 2, 64, 65]]);
  assert.deepEqual(batches.map(({ tokens }) => [...tokens]), [[1, 1, 2], [1, 2, 3, 1, 2]]);
  assert.deepEqual(plan([]), []);
});

Deno.test("planBatches() keeps dense decode rows from sparse ones where dense rows have products of their own", () => {
  const last = { logits: "last" } as const;
  const spans = [
    decode(0, 50, 1, { attention: "sparse", ...last }),
    decode(1, 7, 1, last),
    prefill(2, 64, 2, last),
    decode(3, 5, 2, last),
  ];
  const batches = plan(spans, { matrix: true });
  assert.deepEqual(batches.map(({ product, rows }) => [product, rows]), [["dense", 3], ["vector", 1], ["tiled", 2]]);
  const heads = batches.map(({ drawn }) => drawn.map(({ head }) => head));
  assert.deepEqual(heads, [["dense", "dense"], ["vector"], ["vector"]]);
});

Deno.test("planBatches() cuts long spans into pieces that keep their order", () => {
  const tiled = plan([prefill(0, 10, 2500), prefill(1, 0, 1600)]);
  assert.deepEqual(tiled.map(({ rows }) => rows), [2048, 2048, 4]);
  assert.deepEqual(tiled[1]?.runs, [
    {
      first: 0,
      rows: 452,
      sparse: undefined,
      longest: 2510,
      kept: 0,
      blocks: [{ first: 0, rows: 452 }],
      lengths: [{ first: 0, rows: 452, longest: 2510 }],
    },
    {
      first: 452,
      rows: 1596,
      sparse: undefined,
      longest: 1596,
      kept: 0,
      blocks: [{ first: 452, rows: 1596 }],
      lengths: [{ first: 452, rows: 1596, longest: 1596 }],
    },
  ]);
  assert.deepEqual([tiled[2]?.positions[0], tiled[2]?.positions.at(-1), tiled[2]?.tokens[0]], [1596, 1599, 1597]);
  assert.deepEqual(plan([decode(0, 0, 150)]).map(({ rows }) => rows), [64, 64, 22]);
});

Deno.test("planBatches() joins decode rows that attend alike in one run", () => {
  const spans = [sparse(0, 50), decode(1, 7, 1), sparse(2, 90), sparse(3, 70), sparse(4, 60), decode(5, 8, 2)];
  const [batch] = plan(spans);
  assert.deepEqual(batch?.runs.map(({ lengths: _, ...run }) => run), [
    { first: 0, rows: 3, sparse: undefined, longest: 256, kept: 0, blocks: [{ first: 1, rows: 2 }] },
    { first: 3, rows: 1, sparse: { heads: "kv_head", budget: 18 }, longest: 256, kept: 18, blocks: [] },
    { first: 4, rows: 1, sparse: { heads: "query_head", budget: 20 }, longest: 256, kept: 20, blocks: [] },
    { first: 5, rows: 2, sparse: { heads: "all_heads", budget: 19 }, longest: 256, kept: 19, blocks: [] },
  ]);
  assert.deepEqual([...batch?.positions ?? []], [7, 8, 9, 90, 60, 50, 70]);
});

Deno.test("planBatches() puts one long row before many short ones, and dispatches them apart, in a group as alone", () => {
  const short = (i: number) => (i % 2 === 0 ? sparse(3 * i + 2, 70 + i) : decode(3 * i, 90, 1));
  const spans = [...Array.from({ length: 30 }, (_, i) => short(i)), sparse(98, 60_000), decode(96, 40_000, 3)];
  const map = new PageMap([1000, 1000]);
  for (const share of [ALONE, { index: 0, map }, { index: 1, map }]) {
    const [batch] = plan(spans, { share });
    assert.deepEqual([0, 1, 2, 3].map((row) => batch?.positions[row]), [40_000, 40_001, 40_002, 90]);
    assert.deepEqual([18, 19].map((row) => batch?.positions[row]), [60_000, 70]);
    const ranges = batch?.runs.map(({ lengths }) => lengths.map(({ first, rows }) => [first, rows]));
    assert.deepEqual(ranges, [[[0, 3], [3, 15]], [[18, 1], [19, 15]]]);
    const [dense, selecting] = batch?.runs ?? [];
    assert.equal(dense?.lengths[0]?.longest, dense?.longest);
    assert.equal(selecting?.lengths[0]?.longest, selecting?.longest);
    assert.ok((dense?.lengths[1]?.longest ?? NaN) <= 256);
  }
  const alike = plan(Array.from({ length: 30 }, (_, i) => decode(i, 40_000 + 500 * i, 1)))[0];
  assert.equal(alike?.runs[0]?.lengths.length, 1);
});

Deno.test("planBatches() fills the row table", () => {
  const [vector, tiled] = plan([sparse(5, 99), prefill(7, 30, 2)], { window: 20 });
  // slot, sinks, first and end of what it sees, where K and V go, budget, set shape, newest positions
  assert.deepEqual(row(vector, 0), [105, 4, 80, 100, 99, 21, 0, 5]);
  assert.deepEqual(row(tiled, 1), [107, 0, 12, 32, 31, 0, 0, 0]);
  assert.deepEqual(row(plan([prefill(7, 30, 1)])[0], 0), [107, 0, 0, 31, 30, 0, 0, 0]);
  assert.equal(row(plan([prefill(7, 3, 1)], { window: 20 })[0], 0)[2], 0);
});

Deno.test("planBatches() counts what a worker of a group sees in its own rows", () => {
  const map = new PageMap([10, 10]);
  const onWorker = (index: number, span: Span) => plan([span], { share: { index, map } })[0];
  // Places 0 and 2 lie on worker 0, place 1 on worker 1; position 130 is the third row of place 2.
  assert.deepEqual(row(onWorker(0, sparse(5, 130)), 0), [105, 4, 0, 67, 66, 21, 0, 3]);
  assert.deepEqual(row(onWorker(1, sparse(5, 130)), 0), [105, 0, 0, 64, 0xffffffff, 21, 0, 2]);
  assert.deepEqual(row(onWorker(1, decode(5, 10, 1)), 0), [105, 0, 0, 0, 0xffffffff, 0, 0, 0]);
  assert.deepEqual(onWorker(1, decode(5, 10, 1))?.holders, [true, false]);
  assert.deepEqual(onWorker(0, sparse(5, 130))?.denseHolders, [false, false]);
});

Deno.test("planBatches() splits the rows of long prefills by the owners of their pages", () => {
  const map = new PageMap([20, 10]);
  const split = plan([prefill(0, 60, 300)], { share: { index: 1, map } })[0];
  const owners = [0, 1, 2, 3, 4, 5].map((page) => map.owner(0, page));
  assert.deepEqual(owners, [0, 1, 0, 0, 1, 0]);
  assert.deepEqual(split?.ranges, [
    { first: 0, rows: 4, owner: 0 },
    { first: 4, rows: 64, owner: 1 },
    { first: 68, rows: 128, owner: 0 },
    { first: 196, rows: 64, owner: 1 },
    { first: 260, rows: 40, owner: 0 },
  ]);
  assert.equal(plan([prefill(0, 0, 255)], { share: { index: 1, map } })[0]?.ranges, undefined, "too few rows");
  assert.equal(plan([prefill(0, 0, 300)])[0]?.ranges, undefined, "alone");
});

Deno.test("planBatches() says which rows are scored, and after which a token is drawn", () => {
  const [vector, tiled] = plan([
    prefill(0, 5, 3, { logits: "all" }),
    decode(1, 9, 2, { logits: "all", next: 42 }),
    prefill(2, 0, 4, { logits: "last" }),
    decode(3, 4, 1, { logits: "none" }),
  ]);
  assert.deepEqual(vector?.drawn, []);
  assert.deepEqual(vector?.scored, [{ row: 0, span: 1, target: 2 }, { row: 1, span: 1, target: 42 }]);
  assert.deepEqual(tiled?.scored, [{ row: 0, span: 0, target: 2 }, { row: 1, span: 0, target: 3 }]);
  assert.deepEqual(
    tiled?.drawn.map(({ row, span, sequence, position }) => [row, span, sequence.slot, position]),
    [[2, 0, 100, 7], [6, 2, 102, 3]],
  );
});

Deno.test("planBatches() scores across the cut of a long span, and draws once", () => {
  const batches = plan([decode(0, 0, 130, { logits: "all" })]);
  assert.deepEqual(batches.map(({ scored }) => scored.length), [64, 64, 1]);
  assert.deepEqual(batches[0]?.scored.at(-1), { row: 63, span: 0, target: 65 });
  assert.deepEqual(batches.map(({ drawn }) => drawn.length), [0, 0, 1]);
});

Deno.test("planBatches() starts another batch when the scores of sparse rows would not fit one binding", () => {
  const spans = Array.from({ length: 9 }, (_, i) => sparse(3 * i, 500));
  assert.deepEqual(plan(spans, { maxScores: 4 * 512 }).map(({ rows }) => rows), [4, 4, 1]);
  assert.deepEqual(plan(spans, { maxScores: 100 }).map(({ rows }) => rows), Array(9).fill(1));
  // One long row counts for all of them: they lie in one tensor.
  const mixed = [sparse(0, 60), sparse(3, 60), sparse(6, 500), sparse(9, 60)];
  assert.deepEqual(plan(mixed, { maxScores: 1024 }).map(({ rows }) => rows), [2, 2]);
});

Deno.test("planBatches() refuses a sequence that is not there", () => {
  assert.throws(() => plan([prefill(100, 0, 1)]), { code: "invalid_step", message: /sequence 100: it is not open$/ });
});
