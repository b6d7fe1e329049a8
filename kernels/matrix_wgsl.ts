/**
 * WGSL for matrix units: fragments of a product that a whole subgroup holds, loaded from and stored to arrays. Arrays of
 * halves are `array<vec4<u32>>`, because drivers read `array<f16>` two bytes at a time; offsets and strides count its elements.
 */

import type { GpuInfo } from "./gpu.ts";
import type { MatrixShape } from "./provider.ts";

/** What matrix kernels compute with: the adapter's best instruction that adds in f32, and the size of every subgroup. */
export interface MatrixUnits {
  readonly shape: MatrixShape;
  readonly subgroupSize: number;
}

/** Undefined where no instruction adds in f32, or subgroups differ in size. */
export function matrixUnitsOf(
  { matrix, subgroupSize }: Pick<GpuInfo, "matrix" | "subgroupSize">,
): MatrixUnits | undefined {
  const shape = matrix.find(({ result }) => result === "f32");
  return shape === undefined || subgroupSize === undefined ? undefined : { shape, subgroupSize };
}

/** The same by the narrowest of the instructions: products of few columns waste the least of it. */
export function narrowUnitsOf(
  { matrix, subgroupSize }: Pick<GpuInfo, "matrix" | "subgroupSize">,
): MatrixUnits | undefined {
  const [shape] = matrix.filter(({ result }) => result === "f32").sort((a, b) => a.n - b.n);
  return shape === undefined || subgroupSize === undefined ? undefined : { shape, subgroupSize };
}

/** Halves of one element of an array. */
export const HALVES_AN_ELEMENT = 8;

/** Where a fragment lies: `at` is a WGSL expression, `stride` the distance of two of its rows, or columns. */
export interface FragmentPlace {
  readonly array: string;
  readonly at: string;
  readonly stride: string;
}

/** The WGSL of one shape of product. */
export class Fragments {
  readonly shape: MatrixShape;

  constructor(shape: MatrixShape) {
    this.shape = shape;
  }

  /** Type of the sums: m × n. */
  get sums(): string {
    const { m, n, result } = this.shape;
    return `subgroup_matrix_result<${result}, ${n}, ${m}>`;
  }

  /** A zeroed variable of sums. Explicitly: in a loop, a plain declaration would keep the values of the last round. */
  zeroSums(name: string): string {
    return `var ${name} = ${this.sums}();`;
  }

  /** m × k halves that lie row by row. */
  left({ array, at, stride }: FragmentPlace): string {
    const { m, k } = this.shape;
    return `subgroupMatrixLoad<subgroup_matrix_left<f16, ${k}, ${m}>, row_major>(&${array}, ${at}, ${stride})`;
  }

  /** k × n halves: `rows` when each row of k lies together, `columns` when each column of n does. */
  right({ array, at, stride }: FragmentPlace, together: "rows" | "columns"): string {
    const { n, k } = this.shape;
    const major = together === "rows" ? "row_major" : "col_major";
    return `subgroupMatrixLoad<subgroup_matrix_right<f16, ${n}, ${k}>, ${major}>(&${array}, ${at}, ${stride})`;
  }

  /** Sums that lie row by row. */
  loadSums({ array, at, stride }: FragmentPlace): string {
    return `subgroupMatrixLoad<${this.sums}, row_major>(&${array}, ${at}, ${stride})`;
  }

  /** Stores sums row by row. */
  storeSums({ array, at, stride }: FragmentPlace, sums: string): string {
    return `subgroupMatrixStore<row_major>(&${array}, ${at}, ${sums}, ${stride});`;
  }

  /** sums += left · right */
  accumulate(sums: string, left: string, right: string): string {
    return `${sums} = subgroupMatrixMultiplyAccumulate(${left}, ${right}, ${sums});`;
  }
}
