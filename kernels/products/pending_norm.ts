/**
 * An RMS norm between two products on matrix units, without a kernel of its own. The first product, which adds to the rows,
 * writes them times the norm's weight as well, and sums of their squares, one for each of its fragments of outputs; the second one
 * reads those rows and multiplies its results by 1 / √(mean(x²) + ε). Rows of a family take this way or do not: bits are not those
 * of `rms_norm`, but they do not depend on a row's company.
 */

import type { BindingSpec, ParamField } from "../pipeline.ts";
import { type PendingNorm, type Rows, storeFour, writesRows } from "../rows.ts";
import type { Tensor } from "../tensor.ts";
import { reads, unroll, writes } from "../wgsl.ts";

/** What a product writes beside its results. */
export interface DeferredNorm {
  /** f32 [results of a row] */
  readonly weight: Tensor;
  /** Both halves, [rows, results of a row]: those that the next product reads. */
  readonly out: Rows;
  /** f32 [rows, results of a row / `unit`] */
  readonly squares: Tensor;
}

/**
 * Rows are not normed yet, and halves hold up to 65504: so much smaller they are written. The low halves keep what that costs
 * the high ones.
 */
const SHRUNK = 1 / 16;

/** Threads that share the squares of a row; the order of a row's sum follows from it. */
const LANES = 8;

/** Whether sums of squares of rows so wide, `unit` columns each, can be read by fours. */
export function fitsUnit(cols: number, unit: number): boolean {
  return cols % (4 * unit) === 0;
}

/** What the first product binds. */
export const DEFERRED_BINDINGS: readonly BindingSpec[] = [
  reads("factors", "array<vec4<f32>>"),
  writesRows("normed", "both"),
  writes("squares", "array<f32>"),
];

/** The tensors of those. */
export function deferredTensors({ weight, out, squares }: DeferredNorm): readonly Tensor[] {
  return [weight, out.tensor, squares];
}

/** Statements that write four results; WGSL expressions of their value, their place in a row, and among all fours. */
export function deferFourWgsl(
  { value, four, at, fours }: {
    readonly value: string;
    readonly four: string;
    readonly at: string;
    readonly fours: string;
  },
): string {
  return storeFour("both", "normed", { value: `${value} * factors[${four}] * ${SHRUNK}`, at, fours });
}

/** What the second product binds, and takes as a parameter. */
export const PENDING_BINDINGS: readonly BindingSpec[] = [reads("pendingSquares", "array<vec4<f32>>")];
export const PENDING_PARAMS: readonly ParamField[] = [["epsilon", "f32"]];

/** The tensors and parameters of those. */
export function pendingOperands({ squares, epsilon }: PendingNorm): {
  readonly tensors: readonly Tensor[];
  readonly params: Readonly<Record<string, number>>;
} {
  return { tensors: [squares], params: { epsilon } };
}

/** Sizes of the second product. */
export interface PendingSizes {
  /** Rows of a workgroup, of which the WGSL variable `firstInput` is the first. */
  readonly rows: number;
  readonly threads: number;
  /** Columns of a sum of squares. */
  readonly unit: number;
}

/** Floats of workgroup memory that `readSquaresWgsl` takes. */
export function squareLanes(rows: number): number {
  return rows * LANES;
}

/** Statements that sum the squares of each row into the first `squareLanes` of `array`; a barrier must follow. */
export function readSquaresWgsl(array: string, { rows, threads, unit }: PendingSizes): string {
  return `let quads = params.eights / ${unit / 2}u;
        for (var i = t; i < ${squareLanes(rows)}u; i += ${threads}u) {
          let first = min(firstInput + i / ${LANES}u, params.rows - 1u) * quads;
          var four = vec4<f32>();
          for (var quad = i % ${LANES}u; quad < quads; quad += ${LANES}u) { four += pendingSquares[first + quad]; }
          ${array}[i] = (four.x + four.y) + (four.z + four.w);
        }`;
}

/** Statements that make of those what each row's results are multiplied by, in `scales`; a barrier must follow. */
export function findScalesWgsl(array: string, { rows, threads }: PendingSizes): string {
  return `for (var i = t; i < ${rows}u; i += ${threads}u) {
          var sum = ${array}[i * ${LANES}u];
          ${unroll(LANES - 1, (lane) => `sum += ${array}[i * ${LANES}u + ${lane + 1}u];`)}
          scales[i] = ${1 / SHRUNK} / sqrt(sum / f32(8u * params.eights) + params.epsilon);
        }`;
}
