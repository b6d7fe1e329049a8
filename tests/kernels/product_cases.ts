/**
 * The cases of both matrix products, with the operands made from them. Sizes are odd on purpose: tiles, teams and parts
 * must all be left partly filled by some case.
 */

import type { WeightDType } from "../../kernels/weights/format.ts";
import { type BlockDType, BLOCKS, type SourceDType } from "../../kernels/weights/source_types.ts";
import { createWeight, type Weight } from "../../kernels/weights/weight.ts";
import { writeRows } from "../../kernels/weights/write_rows.ts";
import { floatRows, type Rows } from "../../kernels/rows.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { dequantize } from "../reference/dequantize.ts";
import { product } from "../reference/product.ts";
import { gateCases } from "../support/gate_cases.ts";
import type { GpuFixture } from "../support/gpu_fixture.ts";
import { Random } from "../support/random.ts";
import { randomBlocks } from "../support/random_blocks.ts";

/** One product and how exact it must be. */
export interface ProductCase {
  readonly rows: number;
  readonly weightRows: number;
  readonly cols: number;
  readonly dtype: WeightDType;
  /** Splits the weight into parts of at most so many bytes. */
  readonly partBytes?: number;
  readonly accumulate?: boolean;
  readonly nmse: number;
  /**
   * Whether the kernel bench times it: everywhere, or on GPUs only, where plain loops over all of it would take minutes:
   * the bench then checks a sample of the results. @default it does not
   */
  readonly timed?: "everywhere" | "on GPUs";
}

/** f32 sums of k products err by about √k · 2⁻²⁴ of their size: 1e-12 is the square of that at k = 300, with room. */
const F32_SUMS = 1e-12;

/** Weights of tide-10m, and of Llama-3-8B: qkv, output, gate and up, down, head. */
const TIDE_WEIGHTS = [[768, 256], [1024, 512], [2048, 768]] as const;
const LLAMA_8B_WEIGHTS = [[6144, 4096], [4096, 4096], [28672, 4096], [4096, 14336], [128256, 4096]] as const;

function timedCases(fewRows: readonly number[], manyRows: readonly number[]): ProductCase[] {
  const cases = (weights: readonly (readonly [number, number])[], rowCounts: readonly number[], timed: Timed) =>
    weights.flatMap(([weightRows, cols]) =>
      rowCounts.map((rows): ProductCase => ({ rows, weightRows, cols, dtype: "f16", nmse: LONG_SUMS, timed }))
    );
  return [...cases(TIDE_WEIGHTS, fewRows, "everywhere"), ...cases(LLAMA_8B_WEIGHTS, manyRows, "on GPUs")];
}

type Timed = NonNullable<ProductCase["timed"]>;

/** As above, at k up to 14336. */
const LONG_SUMS = 1e-11;

/** Few rows. */
export const FEW_ROWS: readonly ProductCase[] = [
  { rows: 0, weightRows: 16, cols: 8, dtype: "f16", nmse: 0 },
  { rows: 1, weightRows: 1, cols: 8, dtype: "f16", nmse: F32_SUMS },
  { rows: 1, weightRows: 259, cols: 264, dtype: "f16", nmse: F32_SUMS },
  { rows: 1, weightRows: 2051, cols: 1040, dtype: "f32", nmse: F32_SUMS },
  { rows: 2, weightRows: 77, cols: 520, dtype: "f32", accumulate: true, nmse: F32_SUMS },
  { rows: 5, weightRows: 300, cols: 72, dtype: "f16", partBytes: 72 * 2 * 64, nmse: F32_SUMS },
  { rows: 16, weightRows: 129, cols: 256, dtype: "f16", accumulate: true, nmse: F32_SUMS },
  { rows: 33, weightRows: 131, cols: 136, dtype: "f16", partBytes: 136 * 2 * 7, accumulate: true, nmse: F32_SUMS },
  { rows: 5, weightRows: 37, cols: 544, dtype: "q8", accumulate: true, nmse: F32_SUMS },
  { rows: 2, weightRows: 35, cols: 1056, dtype: "q4", partBytes: 8192, nmse: F32_SUMS },
  { rows: 3, weightRows: 21, cols: 96, dtype: "q5", nmse: F32_SUMS },
  { rows: 1, weightRows: 13, cols: 768, dtype: "q4k", nmse: F32_SUMS },
  { rows: 9, weightRows: 6, cols: 256, dtype: "q5k", nmse: F32_SUMS },
  { rows: 1, weightRows: 70, cols: 512, dtype: "q6k", partBytes: 8192, accumulate: true, nmse: F32_SUMS },
  ...timedCases([1, 8], [1, 2, 4, 8, 16]),
];

/** Rows that attend densely, where they have a product of their own: timed only, as the others test all shapes. */
export const DENSE_ROWS: readonly ProductCase[] = timedCases([], [1, 16, 32, 64]);

/** Many rows. */
export const MANY_ROWS: readonly ProductCase[] = [
  { rows: 0, weightRows: 16, cols: 8, dtype: "f16", nmse: 0 },
  { rows: 1, weightRows: 1, cols: 8, dtype: "f32", nmse: F32_SUMS },
  { rows: 65, weightRows: 67, cols: 72, dtype: "f16", nmse: F32_SUMS },
  { rows: 131, weightRows: 259, cols: 264, dtype: "f16", accumulate: true, nmse: F32_SUMS },
  { rows: 200, weightRows: 300, cols: 40, dtype: "f32", partBytes: 40 * 4 * 64, nmse: F32_SUMS },
  { rows: 67, weightRows: 37, cols: 96, dtype: "q8", accumulate: true, nmse: F32_SUMS },
  { rows: 20, weightRows: 70, cols: 160, dtype: "q4", partBytes: 3000, nmse: F32_SUMS },
  { rows: 70, weightRows: 66, cols: 256, dtype: "q4k", nmse: F32_SUMS },
  { rows: 5, weightRows: 9, cols: 512, dtype: "q6k", nmse: F32_SUMS },
  ...timedCases([256], [256, 1024]),
];

/** Multiplications of a case that plain loops compute in a fraction of a second. */
const MAX_PRODUCTS = gateCases(2 ** 28, Infinity);

/** Those that plain loops compute in reasonable time. */
export function testedCases(cases: readonly ProductCase[]): ProductCase[] {
  return cases.filter(({ timed, rows, weightRows, cols }) =>
    timed !== "on GPUs" && rows * weightRows * cols <= MAX_PRODUCTS
  );
}

/** A case's operands on the GPU and the result expected. */
export interface Operands {
  readonly weight: Weight;
  readonly x: Rows;
  readonly y: Tensor;
  readonly expected: Float64Array;
}

/** What distinguishes a case, for messages. */
export function describeCase({ rows, weightRows, cols, dtype, accumulate, partBytes }: ProductCase): string {
  return `[${rows}, ${cols}] · ${dtype} [${weightRows}, ${cols}]ᵀ${accumulate ? " added" : ""}${
    partBytes === undefined ? "" : ` in parts of ${partBytes}`
  }`;
}

/** Makes the operands; the caller frees the weight. */
export function makeOperands(fixture: GpuFixture, shape: ProductCase): Operands {
  const { rows, weightRows, cols, dtype, partBytes, accumulate } = shape;
  const random = new Random(rows * 7 + weightRows * 31 + cols);
  const { source, data, values } = weightData(random, dtype, weightRows * cols);
  const weight = createWeight(fixture.gpu, "case", {
    rows: weightRows,
    cols,
    dtype,
    ...(partBytes === undefined ? {} : { partBytes }),
  });
  writeRows(fixture, weight, { firstRow: 0, source, data });
  const x = random.normals(rows * cols);
  const before = random.normals(rows * weightRows);
  const expected = product(x, values, { rows, weightRows, cols });
  if (accumulate) before.forEach((value, i) => expected[i] = (expected[i] ?? 0) + value);
  return {
    weight,
    x: floatRows(fixture.upload("f32", x, [rows, cols])),
    y: fixture.upload("f32", before, [rows, weightRows]),
    expected,
  };
}

/** Weights as a file holds them, and what they stand for. */
export function weightData(random: Random, dtype: WeightDType, count: number): {
  readonly source: SourceDType;
  readonly data: Uint8Array<ArrayBuffer>;
  readonly values: Float32Array;
} {
  if (dtype === "f16" || dtype === "f32") {
    const { halves, values } = random.halves(count);
    if (dtype === "f16") return { source: "F16", data: new Uint8Array(halves.buffer), values };
    return { source: "F32", data: new Uint8Array(values.buffer), values };
  }
  const source = (Object.keys(BLOCKS) as BlockDType[]).find((type) => BLOCKS[type].keptAs === dtype) ?? "Q8_0";
  const data = randomBlocks(random, source, count);
  return { source, data, values: dequantize(source, data) };
}
