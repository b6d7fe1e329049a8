/**
 * The product on matrix units: a workgroup computes a tile of results from slices of both operands in workgroup memory,
 * each subgroup a part of it, while the next slices are on their way from storage. Every result is added in ascending k,
 * whatever the tile: a row's bits do not depend on the tile, nor on other rows.
 */

import { Fragments, HALVES_AN_ELEMENT, type MatrixUnits } from "../matrix_wgsl.ts";
import type { KernelSpec } from "../pipeline.ts";
import { describeShape } from "../provider.ts";
import type { WeightDType } from "../weights/format.ts";
import { declareEight, fetchEight, halvesOfEight } from "../weights/read_eight.ts";
import { BUILTINS, GROUP_INDEX, HALF_PACKING_WGSL, reads, unroll, writes } from "../wgsl.ts";

/** How a workgroup cuts the work. */
export interface MatrixTile {
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
  readonly tile: MatrixTile;
  readonly accumulate: boolean;
}

/** Padding of a slice's row, in elements: rows start in different banks. */
const PADDING = 1;

/** The kernel's name, different for every variant. */
export function matrixProductName({ dtype, shape, subgroupSize, tile, accumulate }: MatrixProduct): string {
  return `matrix_product ${dtype} ${describeShape(shape)} by ${subgroupSize} ${Object.values(tile).join("×")}${
    accumulate ? " accumulate" : ""
  }`;
}

/** Numbers that follow from a variant. */
function planOf({ shape, subgroupSize, tile }: MatrixProduct) {
  const across = tile.outputs / tile.subgroupOutputs;
  const subgroups = (tile.rows / tile.subgroupRows) * across;
  const elements = tile.depth / HALVES_AN_ELEMENT;
  return {
    threads: subgroups * subgroupSize,
    subgroups,
    /** Subgroups side by side along the outputs. */
    across,
    slice: { elements, stride: elements + PADDING },
    fragments: {
      rows: tile.subgroupRows / shape.m,
      outputs: tile.subgroupOutputs / shape.n,
      depth: tile.depth / shape.k,
    },
  };
}

type Plan = ReturnType<typeof planOf>;

/** Grid: one workgroup for each tile, made by `spread`; tiles of the same weight rows are neighbours. */
export function matrixProduct(variant: MatrixProduct): KernelSpec {
  const { tile, accumulate, subgroupSize } = variant;
  const plan = planOf(variant);
  const { slice, threads, subgroups, across } = plan;
  const write = new Fragments(variant.shape);
  const { m, n } = variant.shape;
  return {
    needs: ["f16", "matrix"],
    bindings: [reads("w", "array<vec4<u32>>"), reads("x", "array<vec4<u32>>"), writes("y", "array<f32>")],
    params: ["rows", "partRows", "firstRow", "weightRows", "eights"].map((name) => [name, "u32"] as const),
    source: /* wgsl */ `
      ${HALF_PACKING_WGSL}
      var<workgroup> xs: array<vec4<u32>, ${tile.rows * slice.stride}>;
      var<workgroup> ws: array<vec4<u32>, ${tile.outputs * slice.stride}>;
      // Results at the edge pass through here, a fragment of each subgroup at a time.
      var<workgroup> edge: array<f32, ${subgroups * m * n}>;

      @diagnostic(off, chromium.subgroup_matrix_uniformity)
      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let tile = ${GROUP_INDEX};
        let tilesAlongRows = (params.rows + ${tile.rows - 1}u) / ${tile.rows}u;
        let firstRow = (tile % tilesAlongRows) * ${tile.rows}u;
        let firstOutput = (tile / tilesAlongRows) * ${tile.outputs}u;
        if (firstOutput >= params.partRows) { return; }
        let whole = firstRow + ${tile.rows}u <= params.rows && firstOutput + ${tile.outputs}u <= params.partRows;
        let subgroup = t / ${subgroupSize}u;
        let lane = t % ${subgroupSize}u;
        let ownRow = (subgroup / ${across}u) * ${tile.subgroupRows}u;
        let ownOutput = (subgroup % ${across}u) * ${tile.subgroupOutputs}u;
        ${eachFragment(plan, (i, j) => write.zeroSums(`sum${i}_${j}`))}
        ${accumulate ? loadResults(variant, plan) : ""}
        ${sliceOffsets(variant, plan)}
        ${loadSlices(variant, plan, "0u")}
        for (var k = 0u; k < params.eights; k += ${slice.elements}u) {
          workgroupBarrier();
          ${storeSlices(variant, plan)}
          workgroupBarrier();
          let next = k + ${slice.elements}u;
          if (next < params.eights) {
            ${loadSlices(variant, plan, "next")}
          }
          ${multiplySlices(variant, plan)}
        }
        ${storeResults(variant, plan)}
      }`,
  };
}

function eachFragment({ fragments }: Plan, piece: (row: number, output: number) => string): string {
  return unroll(fragments.rows, (i) => unroll(fragments.outputs, (j) => piece(i, j)));
}

/** Elements that a thread brings of each operand's slice. */
function roundsOf({ tile }: MatrixProduct, { slice, threads }: Plan): { x: number; w: number } {
  const x = tile.rows * slice.elements / threads;
  const w = tile.outputs * slice.elements / threads;
  if (!Number.isInteger(x) || !Number.isInteger(w)) {
    throw new RangeError(`Cannot make a matrix product: ${threads} threads do not divide the slices of its tile`);
  }
  return { x, w };
}

/** Where a thread's elements lie in storage at k = 0; rows beyond the last repeat it, and are not stored. */
function sliceOffsets(variant: MatrixProduct, plan: Plan): string {
  const { slice, threads } = plan;
  const rounds = roundsOf(variant, plan);
  const row = (i: number) => `(t + ${i * threads}u) / ${slice.elements}u`;
  const within = (i: number) => `(t + ${i * threads}u) % ${slice.elements}u`;
  const ofX = (i: number) =>
    `let atX${i} = min(firstRow + ${row(i)}, params.rows - 1u) * params.eights + ${within(i)}; var x${i}: vec4<u32>;`;
  return `${unroll(rounds.x, ofX)}
        ${
    unroll(rounds.w, (i) =>
      `let atW${i} = min(firstOutput + ${row(i)}, params.partRows - 1u) * params.eights + ${within(i)}; ${
        declareEight(variant.dtype, `w${i}`)
      }`)
  }`;
}

function loadSlices(variant: MatrixProduct, plan: Plan, k: string): string {
  const rounds = roundsOf(variant, plan);
  return `${unroll(rounds.x, (i) => `x${i} = x[atX${i} + ${k}];`)}
        ${unroll(rounds.w, (i) => fetchEight(variant.dtype, "w", { into: `w${i}`, index: `atW${i} + ${k}` }))}`;
}

function storeSlices(variant: MatrixProduct, plan: Plan): string {
  const { slice, threads } = plan;
  const rounds = roundsOf(variant, plan);
  const place = (i: number) =>
    `((t + ${i * threads}u) / ${slice.elements}u) * ${slice.stride}u + (t + ${i * threads}u) % ${slice.elements}u`;
  return `${unroll(rounds.x, (i) => `xs[${place(i)}] = x${i};`)}
          ${unroll(rounds.w, (i) => `{ ${halvesOfEight(variant.dtype, `w${i}`, `ws[${place(i)}]`)} }`)}`;
}

function multiplySlices({ shape }: MatrixProduct, { slice, fragments }: Plan): string {
  const write = new Fragments(shape);
  const stride = `${slice.stride}u`;
  const at = (row: string, k: number) => `(${row}) * ${slice.stride}u + ${k * shape.k / HALVES_AN_ELEMENT}u`;
  return unroll(fragments.depth, (k) =>
    `{
            ${
      unroll(
        fragments.rows,
        (i) => `let rows${i} = ${write.left({ array: "xs", at: at(`ownRow + ${i * shape.m}u`, k), stride })};`,
      )
    }
            ${
      unroll(fragments.outputs, (j) =>
        `{
              let weight = ${write.right({ array: "ws", at: at(`ownOutput + ${j * shape.n}u`, k), stride }, "columns")};
              ${unroll(fragments.rows, (i) => write.accumulate(`sum${i}_${j}`, `rows${i}`, "weight"))}
            }`)
    }
          }`);
}

/** Where a fragment of results lies in y. */
function resultPlace({ shape }: MatrixProduct, i: number, j: number): { row: string; output: string; at: string } {
  const row = `firstRow + ownRow + ${i * shape.m}u`;
  const output = `firstOutput + ownOutput + ${j * shape.n}u`;
  return { row, output, at: `(${row}) * params.weightRows + params.firstRow + ${output}` };
}

/** Statements for each result of a fragment that lies within y: `value` is its place in `edge`, `at` its place in y. */
function eachEdgeResult(
  { shape, subgroupSize }: MatrixProduct,
  fragment: { row: string; output: string },
  body: string,
) {
  const size = shape.m * shape.n;
  return `
          for (var i = lane; i < ${size}u; i += ${subgroupSize}u) {
            let row = ${fragment.row} + i / ${shape.n}u;
            let output = ${fragment.output} + i % ${shape.n}u;
            let value = subgroup * ${size}u + i;
            let at = row * params.weightRows + params.firstRow + output;
            if (row < params.rows && output < params.partRows) { ${body} }
          }`;
}

/** The sums start from what is in y, at an edge as within: the order of additions must not depend on the number of rows. */
function loadResults(variant: MatrixProduct, plan: Plan): string {
  const write = new Fragments(variant.shape);
  const { m, n } = variant.shape;
  return `if (whole) {
          ${
    eachFragment(plan, (i, j) =>
      `sum${i}_${j} = ${
        write.loadSums({ array: "y", at: resultPlace(variant, i, j).at, stride: "params.weightRows" })
      };`)
  }
        } else {
          ${
    eachFragment(plan, (i, j) => `
          ${eachEdgeResult(variant, resultPlace(variant, i, j), "edge[value] = y[at];")}
          workgroupBarrier();
          sum${i}_${j} = ${write.loadSums({ array: "edge", at: `subgroup * ${m * n}u`, stride: `${n}u` })};
          workgroupBarrier();`)
  }
        }`;
}

function storeResults(variant: MatrixProduct, plan: Plan): string {
  const write = new Fragments(variant.shape);
  const { m, n } = variant.shape;
  return `if (whole) {
          ${
    eachFragment(plan, (i, j) =>
      write.storeSums(
        { array: "y", at: resultPlace(variant, i, j).at, stride: "params.weightRows" },
        `sum${i}_${j}`,
      ))
  }
        } else {
          ${
    eachFragment(plan, (i, j) => `
          workgroupBarrier();
          ${write.storeSums({ array: "edge", at: `subgroup * ${m * n}u`, stride: `${n}u` }, `sum${i}_${j}`)}
          workgroupBarrier();
          ${eachEdgeResult(variant, resultPlace(variant, i, j), "y[at] = edge[value];")}`)
  }
        }`;
}
