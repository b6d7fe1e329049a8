/** The cases of products that place heads: their bits are those of a product and of `ropeAppend` one after the other. */

import assert from "node:assert/strict";
import { type HeadShape, PAGE_ROWS } from "../../kernels/attention/kv_pages.ts";
import type { HeadPlaces } from "../../kernels/attention/place_heads.ts";
import { type HeadProduct, placeAfter, type Product } from "../../kernels/products/product.ts";
import { floatRows } from "../../kernels/rows.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { WeightDType } from "../../kernels/weights/format.ts";
import { createWeight, freeWeight, type Weight } from "../../kernels/weights/weight.ts";
import { writeRows } from "../../kernels/weights/write_rows.ts";
import type { GpuFixture } from "../support/gpu_fixture.ts";
import { tableRow, uploadRows } from "../support/kv_fixture.ts";
import { Random } from "../support/random.ts";
import { weightData } from "./product_cases.ts";

/** A layer's heads, and how they are placed. */
export interface HeadCase extends HeadShape {
  readonly cols: number;
  readonly bias: boolean;
  /** Whether queries are written as halves. */
  readonly halves: boolean;
  /** Of the weight. @default "f16" */
  readonly dtype?: WeightDType;
}

/** Head dimensions that workgroups cut, and that they do not; 24 is no multiple of any tile. */
export const HEAD_CASES: readonly HeadCase[] = [
  { heads: 4, kvHeads: 2, headDim: 64, cols: 264, bias: false, halves: false },
  { heads: 4, kvHeads: 2, headDim: 64, cols: 64, bias: true, halves: true },
  { heads: 3, kvHeads: 1, headDim: 24, cols: 64, bias: true, halves: false },
];

const ROWS = 9;
/** Computed together by the kernel that places heads; the rows of all of them by the two kernels. */
const RANGES = [[0, 1], [1, 2], [3, 6]] as const;
const PAGES = 4;
const SCALE = 0.3;

/** What distinguishes a case, for messages. */
export function describeHeads({ heads, kvHeads, headDim, cols, bias, halves }: HeadCase): string {
  return `${heads}/${kvHeads}×${headDim} of ${cols}${bias ? ", bias" : ""}${halves ? ", halves" : ""}`;
}

/** Queries, keys and values, bit by bit. */
interface Placed {
  readonly q: Uint32Array[];
  readonly k: Uint32Array;
  readonly v: Uint32Array;
}

/**
 * Compares both ways, rows in any company.
 * @param ways for a weight: the kernel that places heads, and the product alone
 */
export async function checkHeadBits(
  fixture: GpuFixture,
  shape: HeadCase,
  ways: (weight: Weight) => {
    readonly placing: (product: HeadProduct) => void;
    readonly product: (product: Product) => void;
  },
): Promise<void> {
  const { heads, kvHeads, headDim, cols, dtype = "f16" } = shape;
  const random = new Random(9);
  const width = (heads + 2 * kvHeads) * headDim;
  const weight = createWeight(fixture.gpu, "heads", { rows: width, cols, dtype });
  writeRows(fixture, weight, { firstRow: 0, ...weightData(random, dtype, width * cols) });
  const inputs = drawInputs(fixture, shape, random);
  const { placing, product } = ways(weight);
  const apart = await place(fixture, { shape, weight, inputs, ranges: [[0, ROWS]] }, (heads) => {
    placeAfter(fixture.commands, heads, product);
  });
  const placed = await place(fixture, { shape, weight, inputs, ranges: RANGES }, placing);
  assert.ok(apart.k.some((word) => word !== 0) && apart.v.some((word) => word !== 0));
  assert.deepEqual(placed.q.flatMap((words) => [...words]), apart.q.flatMap((words) => [...words]), "q");
  assert.deepEqual(placed.k, apart.k, "k");
  assert.deepEqual(placed.v, apart.v, "v");
  freeWeight(fixture.gpu, weight);
}

interface Inputs {
  readonly x: Float32Array<ArrayBuffer>;
  readonly rotations: Float32Array<ArrayBuffer>;
  readonly bias: Tensor;
  readonly pageTable: Tensor;
}

function drawInputs(fixture: GpuFixture, { heads, kvHeads, headDim, cols }: HeadCase, random: Random): Inputs {
  const angles = Array.from({ length: ROWS * headDim / 2 }, () => 6 * random.uniform());
  const width = (heads + 2 * kvHeads) * headDim;
  return {
    x: random.normals(ROWS * cols),
    rotations: Float32Array.from(angles.flatMap((angle) => [Math.cos(angle), Math.sin(angle)])),
    bias: fixture.upload("f32", random.normals(width), [width]),
    pageTable: fixture.upload("u32", Uint32Array.of(2, 0, 3, 1), [1, PAGES]),
  };
}

async function place(
  fixture: GpuFixture,
  { shape, weight, inputs, ranges }: {
    readonly shape: HeadCase;
    readonly weight: Weight;
    readonly inputs: Inputs;
    readonly ranges: readonly (readonly [number, number])[];
  },
  run: (product: HeadProduct) => void,
): Promise<Placed> {
  const { heads, kvHeads, headDim, cols, bias, halves } = shape;
  const pool = [PAGES, kvHeads, PAGE_ROWS, headDim];
  const kv = { k: fixture.zeros("f16", pool), v: fixture.zeros("f16", pool) };
  const q: Uint32Array[] = [];
  for (const [first, rows] of ranges) {
    const part = (data: Float32Array, width: number) => data.slice(first * width, (first + rows) * width);
    // One row more than there are, as tiles read them.
    const queries = halves
      ? fixture.zeros("f16", [kvHeads, rows + 1, heads / kvHeads, headDim])
      : fixture.zeros("f32", [rows, heads, headDim]);
    const places: HeadPlaces = {
      shape: { heads, kvHeads, headDim },
      ...(bias && { bias: inputs.bias }),
      rotations: fixture.upload("f32", part(inputs.rotations, headDim), [rows, headDim / 2, 2]),
      // Backwards over three pages; another worker owns one of them.
      rowTable: uploadRows(
        fixture,
        Array.from(
          { length: rows },
          (_, i) => tableRow({ kvLimit: 1, appendRow: first + i === 2 ? undefined : 150 - 23 * (first + i) }),
        ),
      ),
      kv,
      pageTable: inputs.pageTable,
      maxPages: PAGES,
      q: queries,
      scale: SCALE,
    };
    const x = floatRows(fixture.upload("f32", part(inputs.x, cols), [rows, cols]));
    run({ weight, x, rows, heads: places, scratch: fixture.scratch });
    q.push(...rowsOf(await wordsOf(fixture, queries), { rows, kvHeads, halves }));
  }
  return { q, k: await wordsOf(fixture, kv.k), v: await wordsOf(fixture, kv.v) };
}

/** Each row's queries; of halves, those of a KV head lie together for all rows. */
function rowsOf(
  words: Uint32Array,
  { rows, kvHeads, halves }: { readonly rows: number; readonly kvHeads: number; readonly halves: boolean },
): Uint32Array[] {
  const parts = halves ? kvHeads : 1;
  const size = words.length / parts / (halves ? rows + 1 : rows);
  return Array.from({ length: rows }, (_, row) =>
    Uint32Array.from(
      Array.from({ length: parts }, (_, part) => {
        const at = (part * (halves ? rows + 1 : rows) + row) * size;
        return [...words.subarray(at, at + size)];
      }).flat(),
    ));
}

async function wordsOf(fixture: GpuFixture, tensor: Tensor): Promise<Uint32Array> {
  fixture.commands.submit();
  const [bytes] = await fixture.gpu.read([{ tensor }]);
  return new Uint32Array(bytes?.buffer ?? new ArrayBuffer());
}
