/**
 * The cases of both matrix products, with the operands made from them. Sizes are odd on purpose: tiles, teams and parts
 * must all be left partly filled by some case.
 */

import { createWeight, type Weight, writeRows } from "../../kernels/products/weight.ts";
import type { WeightDType } from "../../kernels/wgsl.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { product } from "../reference/product.ts";
import type { GpuFixture } from "../support/gpu_fixture.ts";
import { Random } from "../support/random.ts";

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
  ...timedCases([256], [256, 1024]),
];

/** Those that plain loops compute in reasonable time. */
export function testedCases(cases: readonly ProductCase[]): ProductCase[] {
  return cases.filter(({ timed }) => timed !== "on GPUs");
}

/** A case's operands on the GPU and the result expected. */
export interface Operands {
  readonly weight: Weight;
  readonly x: Tensor;
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
  const values = random.halves(weightRows * cols);
  const weight = createWeight(fixture.gpu, "case", {
    rows: weightRows,
    cols,
    dtype,
    ...(partBytes === undefined ? {} : { partBytes }),
  });
  const { source, bytes } = dtype === "f16"
    ? { source: "F16" as const, bytes: values.halves }
    : { source: "F32" as const, bytes: values.values };
  writeRows(fixture.gpu, weight, { firstRow: 0, source, data: new Uint8Array(bytes.buffer) });
  const x = random.normals(rows * cols);
  const before = random.normals(rows * weightRows);
  const expected = product(x, values.values, { rows, weightRows, cols });
  if (accumulate) before.forEach((value, i) => expected[i] = (expected[i] ?? 0) + value);
  return {
    weight,
    x: fixture.upload("f32", x, [rows, cols]),
    y: fixture.upload("f32", before, [rows, weightRows]),
    expected,
  };
}
