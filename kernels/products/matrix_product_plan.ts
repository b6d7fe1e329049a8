/** Variants of the product on matrix units, and the numbers that follow from one. */

import { HALVES_AN_ELEMENT, type MatrixUnits } from "../matrix_wgsl.ts";
import { describeShape } from "../provider.ts";
import type { WeightDType } from "../weights/format.ts";
import { unroll } from "../wgsl.ts";
import { describeGate, type ProductGate } from "./product.ts";

/** How a workgroup cuts the work. */
export interface ProductTile {
  /** Rows of x and rows of the weight that a workgroup takes: multiples of what its subgroups take. */
  readonly rows: number;
  readonly outputs: number;
  /** k of a slice; the weight's columns are a multiple of it. */
  readonly depth: number;
  /** Of a subgroup: multiples of the instruction's m and n. */
  readonly subgroupRows: number;
  readonly subgroupOutputs: number;
}

/** A variant of the kernel. */
export interface MatrixProduct extends MatrixUnits {
  /** Of the weight; not f32. */
  readonly dtype: WeightDType;
  readonly tile: ProductTile;
  readonly accumulate: boolean;
  /**
   * Given: of the weight rows that a subgroup takes, the first half are rows of the gate, the others those that they gate.
   * Not to be added to anything.
   */
  readonly gate?: ProductGate;
}

/** Padding of a slice's row, in elements: rows start in different banks. */
const PADDING = 1;

/** The kernel's name, different for every variant. */
export function matrixProductName(variant: MatrixProduct): string {
  const { dtype, shape, subgroupSize, tile, accumulate, gate } = variant;
  return `matrix_product ${dtype} ${describeShape(shape)} by ${subgroupSize} ${Object.values(tile).join("×")}${
    accumulate ? " accumulate" : ""
  }${describeGate(gate)}`;
}

/** Numbers that follow from a variant. */
export interface MatrixPlan {
  /** Columns of y that a tile makes. */
  readonly results: number;
  readonly threads: number;
  readonly subgroups: number;
  /** Subgroups side by side along the outputs. */
  readonly across: number;
  /** Elements of a slice's row, and the distance of two of them. */
  readonly slice: { readonly elements: number; readonly stride: number };
  /** Of a subgroup. */
  readonly fragments: { readonly rows: number; readonly outputs: number; readonly depth: number };
}

/** The plan of a variant. */
export function matrixPlanOf({ shape, subgroupSize, tile, gate }: MatrixProduct): MatrixPlan {
  const across = tile.outputs / tile.subgroupOutputs;
  const subgroups = (tile.rows / tile.subgroupRows) * across;
  const elements = tile.depth / HALVES_AN_ELEMENT;
  return {
    results: gate === undefined ? tile.outputs : tile.outputs / 2,
    threads: subgroups * subgroupSize,
    subgroups,
    across,
    slice: { elements, stride: elements + PADDING },
    fragments: {
      rows: tile.subgroupRows / shape.m,
      outputs: tile.subgroupOutputs / shape.n,
      depth: tile.depth / shape.k,
    },
  };
}

/** Statements for each fragment of a subgroup's results. */
export function eachFragment({ fragments }: MatrixPlan, piece: (row: number, output: number) => string): string {
  return unroll(fragments.rows, (i) => unroll(fragments.outputs, (j) => piece(i, j)));
}
