/**
 * The product on matrix units for few rows, which is bound by reading the weight. A workgroup takes some outputs; its
 * subgroups share out each slice of k, and their sums meet in workgroup memory at the end, in a fixed order. Tiles of rows
 * pass over a slice of the weight in turn, so that up to four of them cost one reading. The order over k depends on the
 * tile alone: a row's bits do not depend on how many rows come along, nor on its place among them.
 */

import type { GpuInfo } from "../gpu.ts";
import { Fragments, HALVES_AN_ELEMENT, type MatrixUnits, matrixUnitsOf } from "../matrix_wgsl.ts";
import type { KernelSpec } from "../pipeline.ts";
import { describeShape } from "../provider.ts";
import type { WeightDType } from "../weights/format.ts";
import { declareEight, fetchEight, halvesOfEight } from "../weights/read_eight.ts";
import { BUILTINS, GROUP_INDEX, HALF_PACKING_WGSL, reads, unroll, writes } from "../wgsl.ts";

/** How a workgroup cuts the work; multiples of the instruction's m, n and k. */
export interface RowTile {
  /** Rows of x that pass over a slice at once. */
  readonly rows: number;
  /** Rows of the weight that a workgroup takes. */
  readonly outputs: number;
  /** Subgroups that share out a slice, and k of each. */
  readonly subgroups: number;
  readonly depth: number;
  /** Slices of the weight that are asked for ahead of the one in work: they stay in registers. Changes no bits. */
  readonly ahead: number;
  /** Tiles of rows in a dispatch, at most: their sums stay in registers. Changes no bits. */
  readonly mostRowTiles: number;
}

/** What a plan of row products fixes: it follows from the adapter alone. */
export interface RowProductCut extends MatrixUnits {
  readonly tile: RowTile;
}

/** A variant of the kernel. */
export interface RowProduct extends RowProductCut {
  /** Of the weight; not f32. */
  readonly dtype: WeightDType;
  /** Tiles of rows that share the reading of the weight. Changes no bits. */
  readonly rowTiles: number;
  /** Whether the weight's columns are no multiple of a slice: the last one is filled up with zeros. */
  readonly ragged: boolean;
  readonly accumulate: boolean;
}

/** Best first. On an H100, one row by 4096 × 4096: 2.7 TB/s of weights with the first; 16 rows 2.0. */
const LARGE_INSTRUCTION_TILES: readonly RowTile[] = [
  { rows: 16, outputs: 32, subgroups: 4, depth: 64, ahead: 2, mostRowTiles: 4 },
  { rows: 16, outputs: 32, subgroups: 4, depth: 32, ahead: 1, mostRowTiles: 4 },
];
/** For instructions of 8 × 8, which software computes: its compiler takes minutes for twice as much in one kernel. */
const SMALL_TILE: RowTile = { rows: 8, outputs: 8, subgroups: 2, depth: 8, ahead: 2, mostRowTiles: 2 };

/** Padding of a slice's row, in elements: rows start in different banks. */
const PADDING = 1;

/** The cut for an adapter; undefined: it has no matrix units that add in f32, or too little workgroup memory. */
export function rowProductCut(
  info: Pick<GpuInfo, "matrix" | "subgroupSize" | "maxWorkgroupBytes" | "maxInvocations">,
): RowProductCut | undefined {
  const units = matrixUnitsOf(info);
  if (units === undefined) return undefined;
  const { shape, subgroupSize } = units;
  const tiles = shape.m < 16 ? [SMALL_TILE] : LARGE_INSTRUCTION_TILES;
  const tile = tiles.find((tile) =>
    tile.rows % shape.m === 0 && tile.outputs % shape.n === 0 && tile.depth % shape.k === 0 &&
    tile.subgroups * subgroupSize <= info.maxInvocations && rowProductBytes(tile) <= info.maxWorkgroupBytes
  );
  return tile && { ...units, tile };
}

/** Elements of a slice's row, and the distance of two rows of it. */
function sliceOf({ subgroups, depth }: RowTile): { readonly elements: number; readonly stride: number } {
  const elements = subgroups * depth / HALVES_AN_ELEMENT;
  return { elements, stride: elements + PADDING };
}

/** Bytes of workgroup memory that a tile takes: both halves of x, the weight, and the subgroups' sums. */
function rowProductBytes(tile: RowTile): number {
  const { rows, outputs, subgroups } = tile;
  return (2 * rows + outputs) * sliceOf(tile).stride * 16 + subgroups * rows * outputs * 4;
}

/** The kernel's name, which tells all variants apart. */
export function rowProductName(variant: RowProduct): string {
  const { dtype, shape, subgroupSize, tile, rowTiles, ragged, accumulate } = variant;
  return `row_product ${dtype} ${describeShape(shape)} by ${subgroupSize} ${
    Object.values(tile).join("×")
  } ${rowTiles} tiles${ragged ? " ragged" : ""}${accumulate ? " accumulate" : ""}`;
}

/** Grid: one workgroup for each `outputs` rows of the weight, made by `spread`. */
export function rowProduct(variant: RowProduct): KernelSpec {
  const { tile, rowTiles, shape, subgroupSize } = variant;
  const { elements, stride } = sliceOf(tile);
  const threads = tile.subgroups * subgroupSize;
  const write = new Fragments(shape);
  return {
    needs: ["f16", "matrix"],
    bindings: [reads("w", "array<vec4<u32>>"), reads("x", "array<vec4<u32>>"), writes("y", "array<f32>")],
    params: ["rows", "firstInput", "partRows", "firstRow", "weightRows", "eights"].map((name) =>
      [name, "u32"] as const
    ),
    source: /* wgsl */ `
      ${HALF_PACKING_WGSL}
      var<workgroup> xs: array<vec4<u32>, ${2 * tile.rows * stride}>;
      var<workgroup> ws: array<vec4<u32>, ${tile.outputs * stride}>;
      var<workgroup> parts: array<f32, ${tile.subgroups * tile.rows * tile.outputs}>;

      @diagnostic(off, chromium.subgroup_matrix_uniformity)
      @compute @workgroup_size(${threads}) fn main(${BUILTINS}) {
        let firstOutput = (${GROUP_INDEX}) * ${tile.outputs}u;
        if (firstOutput >= params.partRows) { return; }
        let subgroup = t / ${subgroupSize}u;
        ${unroll(rowTiles, (r) => eachFragment(variant, (i, j) => write.zeroSums(`sum${r}_${i}_${j}`)))}
        ${sliceOffsets(variant)}
        ${
      unroll(tile.ahead, (s) =>
        `if (${s * elements}u < params.eights) { ${loadWeights(variant, s, `${s * elements}u`)} }`)
    }
        ${loadRows(variant, 0, "0u")}
        for (var first = 0u; first < params.eights; first += ${tile.ahead * elements}u) {
          ${unroll(tile.ahead, (s) => oneSlice(variant, s))}
        }
        ${unroll(rowTiles, (r) => storeResults(variant, r))}
      }`,
  };
}

function eachFragment({ shape, tile }: RowProduct, piece: (row: number, output: number) => string): string {
  return unroll(tile.rows / shape.m, (i) => unroll(tile.outputs / shape.n, (j) => piece(i, j)));
}

/** Elements that a thread brings of each operand's slice. */
function roundsOf({ tile, subgroupSize }: RowProduct): { x: number; w: number } {
  const { elements } = sliceOf(tile);
  const threads = tile.subgroups * subgroupSize;
  const [x, w] = [2 * tile.rows * elements / threads, tile.outputs * elements / threads];
  if (!Number.isInteger(x) || !Number.isInteger(w)) {
    throw new RangeError(`Cannot make a row product: ${threads} threads do not divide the slices of its tile`);
  }
  return { x, w };
}

/** WGSL of a thread's place in a slice, round by round: its row, and its element there. */
function placeOf({ tile, subgroupSize }: RowProduct, round: number): { row: string; element: string } {
  const { elements } = sliceOf(tile);
  const index = `(t + ${round * tile.subgroups * subgroupSize}u)`;
  return { row: `${index} / ${elements}u`, element: `${index} % ${elements}u` };
}

/** Where a thread's elements lie in storage at k = 0. */
function sliceOffsets(variant: RowProduct): string {
  const { tile, rowTiles } = variant;
  const rounds = roundsOf(variant);
  const ofX = (i: number) => {
    const { row, element } = placeOf(variant, i);
    const input = (r: number) => `params.firstInput + ${r * tile.rows}u + (${row}) % ${tile.rows}u`;
    const plane = `(${row}) / ${tile.rows}u * params.rows`;
    const ofTile = (r: number) =>
      `let isRow${r}_${i} = ${input(r)} < params.rows; let atX${r}_${i} = (${input(r)} + ${plane}) * params.eights;`;
    return `let elementX${i} = ${element}; var x${i}: vec4<u32>;
        ${unroll(rowTiles, ofTile)}`;
  };
  const ofW = (i: number) => {
    const { row, element } = placeOf(variant, i);
    const ofSlice = (s: number) =>
      `${declareEight(variant.dtype, `w${s}_${i}`)}${variant.ragged ? ` var insideW${s}_${i} = true;` : ""}`;
    return `let elementW${i} = ${element}; ${unroll(tile.ahead, ofSlice)}
        let atW${i} = min(firstOutput + ${row}, params.partRows - 1u) * params.eights;`;
  };
  return `${unroll(rounds.x, ofX)}
        ${unroll(rounds.w, ofW)}`;
}

/** An element of a slice that starts at k; zeros beyond the columns. */
function elementAt({ ragged }: RowProduct, array: string, { at, element, k }: Record<"at" | "element" | "k", string>) {
  if (!ragged) return `${array}[${at} + ${element} + ${k}]`;
  const column = `${element} + ${k}`;
  return `select(vec4<u32>(), ${array}[${at} + min(${column}, params.eights - 1u)], ${column} < params.eights)`;
}

function loadWeights(variant: RowProduct, slice: number, k: string): string {
  const { dtype, ragged } = variant;
  const fetch = (i: number) => {
    const column = `elementW${i} + ${k}`;
    if (!ragged) return fetchEight(dtype, "w", { into: `w${slice}_${i}`, index: `atW${i} + ${column}` });
    const index = `atW${i} + min(${column}, params.eights - 1u)`;
    const into = `w${slice}_${i}`;
    return `insideW${slice}_${i} = ${column} < params.eights; ${fetchEight(dtype, "w", { into, index })}`;
  };
  return unroll(roundsOf(variant).w, fetch);
}

/** What `loadWeights` brought, as halves: zeros beyond the columns. */
function storeWeight({ dtype, ragged }: RowProduct, piece: string, to: string): string {
  const store = halvesOfEight(dtype, `w${piece}`, to);
  return ragged ? `if (insideW${piece}) { ${store} } else { ${to} = vec4<u32>(); }` : `{ ${store} }`;
}

/** Rows beyond the last stay zeros: most rows of a tile are, when one row is decoded. */
function loadRows(variant: RowProduct, rowTile: number, k: string): string {
  const element = (i: number) => elementAt(variant, "x", { at: `atX${rowTile}_${i}`, element: `elementX${i}`, k });
  const load = (i: number) => `x${i} = vec4<u32>(); if (isRow${rowTile}_${i}) { x${i} = ${element(i)}; }`;
  return unroll(roundsOf(variant).x, load);
}

/** One slice of the weight, if there is that much of it left. */
function oneSlice(variant: RowProduct, slice: number): string {
  const { tile, rowTiles } = variant;
  const { elements } = sliceOf(tile);
  return `{
            let k = first + ${slice * elements}u;
            if (k < params.eights) {
              let next = k + ${elements}u;
              ${unroll(rowTiles, (r) => oneTile(variant, slice, r))}
            }
          }`;
}

/** One tile of rows over one slice: stages what has arrived, asks for what comes next, and multiplies. */
function oneTile(variant: RowProduct, slice: number, rowTile: number): string {
  const rounds = roundsOf(variant);
  const { elements, stride } = sliceOf(variant.tile);
  const to = (i: number) => {
    const { row, element } = placeOf(variant, i);
    return `(${row}) * ${stride}u + ${element}`;
  };
  const isLast = rowTile === variant.rowTiles - 1;
  const later = `k + ${variant.tile.ahead * elements}u`;
  return `workgroupBarrier();
          ${unroll(rounds.x, (i) => `xs[${to(i)}] = x${i};`)}
          ${rowTile === 0 ? unroll(rounds.w, (i) => storeWeight(variant, `${slice}_${i}`, `ws[${to(i)}]`)) : ""}
          workgroupBarrier();
          ${rowTile === 0 ? `if (${later} < params.eights) { ${loadWeights(variant, slice, later)} }` : ""}
          ${
    isLast ? `if (next < params.eights) { ${loadRows(variant, 0, "next")} }` : loadRows(variant, rowTile + 1, "k")
  }
          ${multiply(variant, rowTile)}`;
}

/** High halves before low ones, at every step of k. */
function multiply({ shape, tile }: RowProduct, rowTile: number): string {
  const write = new Fragments(shape);
  const { stride } = sliceOf(tile);
  const at = (row: number, step: number) =>
    `${row * stride}u + subgroup * ${tile.depth / HALVES_AN_ELEMENT}u + ${step * shape.k / HALVES_AN_ELEMENT}u`;
  const left = (row: number, step: number) => write.left({ array: "xs", at: at(row, step), stride: `${stride}u` });
  const right = (j: number, step: number) =>
    write.right({ array: "ws", at: at(j * shape.n, step), stride: `${stride}u` }, "columns");
  const rows = tile.rows / shape.m;
  return unroll(tile.depth / shape.k, (step) =>
    `{
            ${
      unroll(rows, (i) =>
        `let high${i} = ${left(i * shape.m, step)};
            let low${i} = ${left(tile.rows + i * shape.m, step)};`)
    }
            ${
      unroll(tile.outputs / shape.n, (j) =>
        `{
              let weight = ${right(j, step)};
              ${
          unroll(rows, (i) => {
            const sum = `sum${rowTile}_${i}_${j}`;
            return `${write.accumulate(sum, `high${i}`, "weight")} ${write.accumulate(sum, `low${i}`, "weight")}`;
          })
        }
            }`)
    }
          }`);
}

/** Adds the subgroups' sums in their order, and what is in y last. */
function storeResults(variant: RowProduct, rowTile: number): string {
  const { shape, tile, subgroupSize, accumulate } = variant;
  const { rows, outputs, subgroups } = tile;
  const write = new Fragments(shape);
  const place = (i: number, j: number) => ({
    array: "parts",
    at: `subgroup * ${rows * outputs}u + ${i * shape.m * outputs + j * shape.n}u`,
    stride: `${outputs}u`,
  });
  return `workgroupBarrier();
        ${eachFragment(variant, (i, j) => write.storeSums(place(i, j), `sum${rowTile}_${i}_${j}`))}
        workgroupBarrier();
        for (var i = t; i < ${rows * outputs}u; i += ${subgroups * subgroupSize}u) {
          let row = params.firstInput + ${rowTile * rows}u + i / ${outputs}u;
          let output = firstOutput + i % ${outputs}u;
          if (row < params.rows && output < params.partRows) {
            let at = row * params.weightRows + params.firstRow + output;
            var sum = parts[i];
            ${unroll(subgroups - 1, (part) => `sum += parts[i + ${(part + 1) * rows * outputs}u];`)}
            y[at] = ${accumulate ? "y[at] + sum" : "sum"};
          }
        }`;
}
