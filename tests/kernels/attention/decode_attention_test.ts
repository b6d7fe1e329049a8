import assert from "node:assert/strict";
import { type DecodeAttention, decodeAttention } from "../../../kernels/attention/decode_attention.ts";
import type { Tuning } from "../../../kernels/attention/tuning.ts";
import type { HeadShape } from "../../../kernels/attention/kv_pages.ts";
import type { RowRange } from "../../../kernels/attention/row_blocks.ts";
import { NO_POSITION, type SetShape, setsOf, type TableRow } from "../../../kernels/attention/row_table.ts";
import { floatRows, takeRows } from "../../../kernels/rows.ts";
import { attend, scoresOf } from "../../reference/attention.ts";
import { assertClose } from "../../support/assert_close.ts";
import { digitWordsOf, emptyDigits } from "../../support/digit_words.ts";
import { gateCases } from "../../support/gate_cases.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { type KvFixture, kvFixture, tableRow } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";
import { ROW_FORM_NMSE, rowValues } from "../../support/row_values.ts";
import { ATTENTION_CASES, F32_SUMS } from "./attention_cases.ts";
import { decodeArgs } from "./decode_blocks.ts";

const fixture = gpuFixture();

/** Logits of a few units, summed over at most 128 f32 products. */
const LOGIT_ERROR = 1e-5;

const TUNINGS = ["software", "hardware"] as const;

for (const { name, shape, rows, blocks, nmse } of ATTENTION_CASES) {
  Deno.test(`decodeAttention() equals plain loops: ${name}`, async () => {
    const call = prepare(shape, rows);
    const expected = reference(call);
    for (const tuning of TUNINGS) {
      const { o, lse, scores } = await run(call, { withScores: true, tuning });
      assertClose(o, expected.o, { nmse });
      assertClose(lse, expected.lse, { maxAbs: LOGIT_ERROR });
      for (const [at, score] of expected.scores) assert.ok(Math.abs((scores[at] ?? NaN) - score) < LOGIT_ERROR);
      if (blocks === undefined) continue;
      const shared = await run(call, { blocks, tuning });
      assertClose(shared.o, expected.o, { nmse });
      assertClose(shared.lse, expected.lse, { maxAbs: LOGIT_ERROR });
    }
  });
}

Deno.test("decodeAttention() gives a row the same bits alone, in company, and under any bound", async () => {
  const shape = { heads: 4, kvHeads: 2, headDim: 64 };
  const limits = [1, 64, 255, 256, 257, 512, 700, 1000, 3, 128, 513, 999, 640, 320, 2, 800];
  const call = prepare(shape, limits.map((kvLimit, i) => tableRow({ kvLimit, sequenceSlot: i % 2 })));
  const all = await run(call, { longest: 5000 });
  for (const row of [3, 7]) {
    const alone = await run(call, { firstRow: row, rows: 1, longest: limits[row] ?? 0 });
    assert.deepEqual(alone.o.subarray(row * 256, row * 256 + 256), all.o.subarray(row * 256, row * 256 + 256));
    assert.equal(alone.lse[row * 4 + 1], all.lse[row * 4 + 1]);
  }
  const cramped = await run(call, { scratchRows: 3 });
  assert.deepEqual(cramped.o, all.o);
});

Deno.test("decodeAttention() writes outputs as halves, of no split, of one, or merged", async () => {
  const shape = { heads: 4, kvHeads: 2, headDim: 64 };
  const call = prepare(shape, [0, 64, 600].map((kvLimit) => tableRow({ kvLimit })));
  const { o } = await run(call, {});
  const size = { rows: call.rows.length, cols: shape.heads * shape.headDim };
  const rows = takeRows(fixture.scratch, "outputs, halves", { form: "f16", ...size });
  const args = decodeArgs(fixture, call);
  decodeAttention(fixture.commands, { ...args, out: { ...args.out, o: rows.tensor }, outForm: "f16" });
  assertClose(await rowValues(fixture, rows, size), o, { nmse: ROW_FORM_NMSE.f16 });
});

Deno.test("decodeAttention() writes the digits of outputs, of no split, of one, or merged", async () => {
  const shape = { heads: 4, kvHeads: 2, headDim: 64 };
  const call = prepare(shape, [0, 64, 600, 601].map((kvLimit) => tableRow({ kvLimit, selected: kvLimit && 70 })));
  const size = { rows: call.rows.length, cols: shape.heads * shape.headDim };
  const args = decodeArgs(fixture, call);
  const selected = select(call, ["kv_head"]);
  const positions = fixture.upload("u32", selected.positions, [size.rows, selected.sets, selected.stride]);
  const variants = [{ selection: { ...selected, positions }, longest: 70 }, {}, { blocks: [{ first: 2, rows: 2 }] }];
  for (const variant of gateCases(variants.slice(0, 2), variants)) {
    const given = { ...variant, tuning: "hardware" } as const;
    const out = emptyDigits(fixture, size);
    decodeAttention(fixture.commands, { ...args, ...given });
    const lse = await fixture.words(args.out.lse);
    const expected = await digitWordsOf(fixture, floatRows(args.out.o), size);
    decodeAttention(fixture.commands, { ...args, ...given, out: { ...args.out, o: out.tensor }, outForm: "digits" });
    assert.deepEqual(await fixture.words(out.tensor), expected, JSON.stringify(given));
    assert.deepEqual(await fixture.words(args.out.lse), lse);
  }
});

for (const setShape of ["kv_head", "query_head", "all_heads"] as const) {
  Deno.test(`decodeAttention() gathers what each ${setShape} set selects`, async () => {
    for (
      const shape of [{ heads: 4, kvHeads: 2, headDim: 64 }, { heads: 4, kvHeads: 1, headDim: 32 }, {
        heads: 3,
        kvHeads: 3,
        headDim: 16,
      }]
    ) {
      const rows = [300, 1000, 40, 700].map((kvLimit, i) =>
        tableRow({ kvLimit, selected: [64, 290, 64, 0][i] ?? 0, setShape, sequenceSlot: i % 2 })
      );
      const call = prepare(shape, rows);
      const selected = select(call, [setShape]);
      const expected = reference(call, selected);
      for (const tuning of TUNINGS) {
        const { o, lse } = await run(call, { selected, longest: 290, tuning });
        assertClose(o, expected.o, { nmse: F32_SUMS });
        assertClose(lse, expected.lse, { maxAbs: LOGIT_ERROR });
      }
    }
  });
}

Deno.test("decodeAttention() gathers rows of unlike set shapes in one call", async () => {
  const shapes = ["kv_head", "query_head", "all_heads"] as const;
  const rows = shapes.map((setShape) => tableRow({ kvLimit: 500, selected: 100, setShape }));
  const call = prepare({ heads: 8, kvHeads: 2, headDim: 128 }, rows);
  const selected = select(call, shapes);
  const expected = reference(call, selected);
  for (const tuning of TUNINGS) {
    const { o } = await run(call, { selected, longest: 100, tuning });
    assertClose(o, expected.o, { nmse: F32_SUMS });
  }
});

Deno.test("decodeAttention() over a selection of everything is near the dense result", async () => {
  const call = prepare({ heads: 4, kvHeads: 2, headDim: 64 }, [tableRow({ kvLimit: 777, selected: 777 })]);
  const selected = select(call, ["kv_head"]);
  const gathered = await run(call, { selected });
  const dense = await run(call, {});
  assertClose(gathered.o, dense.o, { nmse: 1e-12 });
});

Deno.test("decodeAttention() skips the padding of sets of unlike length, down to none", async () => {
  const rows = [tableRow({ kvLimit: 700, selected: 300 }), tableRow({ kvLimit: 40, selected: 300 })];
  // A lane of its own for each K row, and more lanes than rows.
  const call = prepare({ heads: 2, kvHeads: 2, headDim: 24 }, rows);
  const selected = select(call, ["kv_head"]);
  const { stride } = selected;
  // Row 0: 17 positions in the first set, none in the second; row 1: all 40, and 1.
  for (const [set, kept] of [17, 0, 40, 1].entries()) {
    selected.positions.fill(NO_POSITION, set * stride + kept, (set + 1) * stride);
  }
  const expected = reference(call, selected);
  for (const tuning of TUNINGS) {
    const { o, lse } = await run(call, { selected, longest: 300, tuning });
    assertClose(o, expected.o, { nmse: F32_SUMS });
    assertClose(lse, expected.lse, { nmse: F32_SUMS });
  }
});

Deno.test("decodeAttention() ends where the padding of a set begins: at, before and behind the border of a split", async () => {
  const kept = [256, 255, 257, 0, 16, 513, 600, 700, 1, 271, 272, 273];
  const rows = kept.map(() => tableRow({ kvLimit: 900, selected: 700 }));
  const call = prepare({ heads: 2, kvHeads: 1, headDim: 32 }, rows);
  const selected = select(call, ["kv_head"]);
  kept.forEach((count, row) => {
    selected.positions.fill(NO_POSITION, row * selected.stride + count, (row + 1) * selected.stride);
  });
  const expected = reference(call, selected);
  for (const tuning of TUNINGS) {
    const { o, lse } = await run(call, { selected, longest: 700, tuning });
    assertClose(o, expected.o, { nmse: F32_SUMS });
    assertClose(lse, expected.lse, { nmse: F32_SUMS });
  }
});

Deno.test("decodeAttention() refuses scratch that cannot hold one row", () => {
  const call = prepare({ heads: 2, kvHeads: 2, headDim: 16 }, [tableRow({ kvLimit: 600 })]);
  const args = {
    ...decodeArgs(fixture, call),
    scratch: { o: fixture.zeros("f32", [2, 2, 16]), lse: fixture.zeros("f32", [2, 2]) },
  };
  assert.throws(
    () => decodeAttention(fixture.commands, args),
    /Cannot dispatch attention: scratch holds 2 states, 4 splits/,
  );
});

interface Call {
  readonly shape: HeadShape;
  readonly rows: readonly TableRow[];
  readonly kv: KvFixture;
  readonly q: Float32Array<ArrayBuffer>;
  readonly longest: number;
}

/** What each set of each row selects, and its tensor's sizes. */
interface Selected {
  readonly shapes: readonly SetShape[];
  readonly positions: Uint32Array<ArrayBuffer>;
  readonly sets: number;
  readonly stride: number;
}

interface Overrides {
  readonly firstRow?: number;
  readonly rows?: number;
  readonly longest?: number;
  readonly scratchRows?: number;
  readonly withScores?: boolean;
  readonly selected?: Selected;
  readonly tuning?: Tuning;
  readonly blocks?: readonly RowRange[];
}

function prepare(shape: HeadShape, rows: readonly TableRow[]): Call {
  const longest = Math.max(...rows.map(({ kvLimit }) => kvLimit));
  const slots = 1 + Math.max(...rows.map(({ sequenceSlot }) => sequenceSlot));
  const kv = kvFixture(fixture, shape, { slots, length: longest, seed: 5 });
  return { shape, rows, kv, longest, q: new Random(6).normals(rows.length * shape.heads * shape.headDim) };
}

async function run(call: Call, { scratchRows, withScores, selected, ...bounds }: Overrides) {
  const longest = bounds.longest ?? call.longest;
  const args: DecodeAttention = { ...decodeArgs(fixture, { ...call, longest, scratchRows }), ...bounds };
  const { heads } = call.shape;
  const scores = fixture.zeros("f32", [call.rows.length, heads, longest]);
  decodeAttention(fixture.commands, {
    ...args,
    ...(withScores === true ? { scores: { scores, stride: longest } } : {}),
    ...(selected === undefined ? {} : {
      selection: {
        ...selected,
        positions: fixture.upload("u32", selected.positions, [call.rows.length, selected.sets, selected.stride]),
      },
    }),
  });
  return {
    o: await fixture.floats(args.out.o),
    lse: await fixture.floats(args.out.lse),
    scores: await fixture.floats(scores),
  };
}

/** Random ascending positions for every set. */
function select({ shape, rows }: Call, shapes: readonly SetShape[]): Selected {
  const random = new Random(7);
  const sets = Math.max(...shapes.map((name) => setsOf(name, shape)));
  const stride = Math.max(...rows.map(({ selected }) => selected)) + 3;
  const positions = new Uint32Array(rows.length * sets * stride).fill(0xdead_beef);
  rows.forEach(({ kvLimit, selected }, row) => {
    for (let set = 0; set < sets; set++) {
      const pool = Array.from({ length: kvLimit }, (_, i) => i);
      const drawn = Array.from(
        { length: Math.min(selected, kvLimit) },
        () => pool.splice(random.integer(pool.length), 1)[0] ?? 0,
      );
      positions.set(drawn.sort((a, b) => a - b), (row * sets + set) * stride);
    }
  });
  return { shapes, positions, sets, stride };
}

function reference({ shape, rows, kv, q, longest }: Call, selected?: Selected) {
  const { heads, kvHeads, headDim } = shape;
  const [o, lse]: [number[], number[]] = [[], []];
  const scores = new Map<number, number>();
  rows.forEach((row, index) => {
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      const visible = visibleRows(
        row,
        selected === undefined ? undefined : setOf(selected, { shape, row, index, head }),
      );
      const at = (index * heads + head) * headDim;
      const keys = visible.map((local) => kv.k(row.sequenceSlot, local, kvHead));
      const own = scoresOf(q.subarray(at, at + headDim), keys, 1 / Math.sqrt(headDim));
      visible.forEach((local, i) => scores.set((index * heads + head) * longest + local, own[i] ?? NaN));
      const state = attend(own, visible.map((local) => kv.v(row.sequenceSlot, local, kvHead)), headDim);
      o.push(...state.o);
      lse.push(state.lse);
    }
  });
  return { o, lse, scores };
}

function visibleRows({ kvFrom, kvLimit }: TableRow, set: Uint32Array | undefined): number[] {
  const all = set === undefined ? Array.from({ length: kvLimit }, (_, i) => i) : [...set];
  return all.filter((local) => local >= kvFrom && local < kvLimit);
}

interface SetQuery {
  readonly shape: HeadShape;
  readonly row: TableRow;
  readonly index: number;
  readonly head: number;
}

function setOf({ positions, sets, stride }: Selected, { shape, row, index, head }: SetQuery): Uint32Array {
  const set = row.setShape === "all_heads" ? 0 : Math.floor((head * setsOf(row.setShape, shape)) / shape.heads);
  const at = (index * sets + set) * stride;
  return positions.subarray(at, at + Math.min(row.selected, row.kvLimit));
}
