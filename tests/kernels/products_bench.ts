/**
 * Both matrix products over the timed cases of their table, for the kernel bench. Each case is checked on a sample of its
 * results before it is timed. Knows operands; the clock is in `kernel_timing.ts`.
 */

import type { Commands } from "../../kernels/pipeline.ts";
import { matmul } from "../../kernels/products/matmul.ts";
import { matvec, planRows } from "../../kernels/products/matvec.ts";
import type { Product } from "../../kernels/products/product.ts";
import { randomWeight } from "../../kernels/weights/random_weight.ts";
import { rowProductCut } from "../../kernels/products/row_tile.ts";
import { createWeight, freeWeight, type Weight } from "../../kernels/weights/weight.ts";
import { Scratch } from "../../kernels/scratch.ts";
import { fromHalf } from "../../kernels/half.ts";
import { floatRows } from "../../kernels/rows.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { assertClose } from "../support/assert_close.ts";
import { Random } from "../support/random.ts";
import { ROW_FORM_NMSE } from "../support/row_values.ts";
import { type KernelFigures, type KernelTiming, timeKernel } from "./kernel_timing.ts";
import { DENSE_ROWS, FEW_ROWS, MANY_ROWS, type ProductCase } from "./product_cases.ts";

/** Weights are rotated through, so that no cache holds the next one. */
const ROTATED_BYTES = 2 ** 28;
/** Weight rows whose results are checked, spread over all. */
const CHECKED_ROWS = 7;

/** Every timed case that this adapter computes in reasonable time. */
export async function benchProducts(timing: KernelTiming): Promise<KernelFigures[]> {
  const { software } = timing.commands.gpu.info;
  const figures: KernelFigures[] = [];
  const hasMatrices = rowProductCut(timing.commands.gpu.info) !== undefined;
  const rounding = hasMatrices ? ROW_FORM_NMSE.f16 : 0;
  const products = [
    { name: "matvec", run: matvec, cases: FEW_ROWS, rounding: 0 },
    { name: "dense rows", run: denseRows, cases: hasMatrices ? DENSE_ROWS : [], rounding },
    { name: "matmul", run: matmul, cases: MANY_ROWS, rounding },
  ];
  for (const { name, run, cases, rounding } of products) {
    for (const shape of cases) {
      if (shape.timed === undefined || (software && shape.timed === "on GPUs")) continue;
      figures.push(
        ...await benchProduct(timing, shape, { name, rounding, run: (product) => run(timing.commands, product) }),
      );
    }
  }
  return figures;
}

function denseRows(commands: Commands, product: Product): void {
  matvec(commands, product, planRows(commands.gpu.info, product.weight));
}

async function benchProduct(
  timing: KernelTiming,
  shape: ProductCase,
  { name, rounding, run }: {
    readonly name: string;
    /** What rounding rows to what the kernel reads may add to the squared error. */
    readonly rounding: number;
    readonly run: (product: Product) => void;
  },
): Promise<readonly KernelFigures[]> {
  const { commands } = timing;
  const { gpu } = commands;
  const { rows, weightRows, cols, dtype } = shape;
  const title = `${name} ${rows}×${weightRows}×${cols} ${dtype}`;
  if (!timing.isWanted(title)) return [];
  const bytes = weightRows * cols * 2;
  const copies = gpu.info.software ? 1 : Math.max(1, Math.ceil(ROTATED_BYTES / bytes));
  const weights = Array.from({ length: copies }, (_, seed) => {
    const weight = createWeight(gpu, `copy ${seed}`, { rows: weightRows, cols, dtype });
    randomWeight(commands, weight, { seed, deviation: 0.02 });
    return weight;
  });
  const scratch = new Scratch(commands);
  const x = gpu.tensor("x", "f32", [rows, cols]);
  const y = gpu.tensor("y", "f32", [rows, weightRows]);
  const values = new Random(rows).normals(rows * cols);
  gpu.write(x, values);
  const record = (call: number) => {
    const weight = weights[call % copies];
    if (weight !== undefined) run({ weight, x: floatRows(x), y, rows, scratch });
  };
  try {
    record(0);
    await check(commands, { ...shape, nmse: shape.nmse + rounding }, { weight: weights[0], y, values });
    return await timeKernel(timing, { name: title, record, bytes, flop: 2 * rows * weightRows * cols });
  } finally {
    for (const weight of weights) freeWeight(gpu, weight);
    scratch.close();
    gpu.free(x);
    gpu.free(y);
  }
}

/** Compares a few columns of y with plain f64 loops. */
async function check(
  commands: Commands,
  { rows, weightRows, cols, nmse }: ProductCase,
  { weight, y, values }: { readonly weight: Weight | undefined; readonly y: Tensor; readonly values: Float32Array },
): Promise<void> {
  commands.submit();
  const [bytes] = await commands.gpu.read([{ tensor: y, byteLength: rows * weightRows * 4 }]);
  if (bytes === undefined || weight === undefined) throw new Error("Cannot check a product: nothing came back");
  const results = new Float32Array(bytes.buffer);
  const [actual, expected]: [number[], number[]] = [[], []];
  for (let i = 0; i < CHECKED_ROWS; i++) {
    const n = Math.floor(i * (weightRows - 1) / (CHECKED_ROWS - 1));
    const w = await weightRow(commands, weight, n);
    for (let m = 0; m < rows; m++) {
      let sum = 0;
      for (let k = 0; k < cols; k++) sum += (values[m * cols + k] ?? NaN) * (w[k] ?? NaN);
      expected.push(sum);
      actual.push(results[m * weightRows + n] ?? NaN);
    }
  }
  assertClose(actual, expected, { nmse });
}

async function weightRow(commands: Commands, weight: Weight, n: number): Promise<Float32Array> {
  const part = weight.parts.find(({ firstRow, rows }) => n >= firstRow && n < firstRow + rows);
  if (part === undefined) throw new RangeError(`Cannot read weight row ${n}: there are ${weight.rows}`);
  const byteLength = weight.cols * 2;
  const [bytes] = await commands.gpu.read([{
    tensor: part.tensor,
    byteOffset: (n - part.firstRow) * byteLength,
    byteLength,
  }]);
  if (bytes === undefined) throw new Error(`Cannot read weight row ${n}: nothing came back`);
  return fromHalf(new Uint16Array(bytes.buffer));
}
