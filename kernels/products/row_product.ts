/**
 * The product on matrix units for few rows, which is bound by reading the weight. The weight is the left factor; the columns of
 * the right one are rows of x, two for each: its high halves and its low ones, whose sums are added at the end. A workgroup
 * takes some outputs; its subgroups share out k in turns, and their sums meet in workgroup memory in a fixed order. Columns
 * pass over a slice of the weight some at a time, so that many rows cost one reading. The order over k depends on the cut
 * alone: a row's bits do not depend on how many rows come along, nor on its place among them.
 */

import { Fragments, HALVES_AN_ELEMENT } from "../matrix_wgsl.ts";
import type { KernelSpec } from "../pipeline.ts";
import { describeShape } from "../provider.ts";
import { halvesOfEight } from "../weights/halves_of_eight.ts";
import { declareEight, fetchEight } from "../weights/read_eight.ts";
import { BUILTINS, GROUP_INDEX, HALF_PACKING_WGSL, reads, unroll } from "../wgsl.ts";
import { describePairing, isPaired, pairedRow, pairingWgsl, resultBindings, resultParams } from "./paired_results.ts";
import { PRODUCT_PARAMS } from "./product.ts";
import { storeSums, sumOfWgsl } from "./row_results.ts";
import { HALVES, meetingOf, outputsOf, type RowProduct, sliceOf, threadsOf } from "./row_tile.ts";

/** The kernel's name, which tells all variants apart. */
export function rowProductName(
  { dtype, shape, subgroupSize, shares, depth, tile, ragged, accumulate, ...pairing }: RowProduct,
): string {
  return `row_product ${dtype} ${describeShape(shape)} by ${subgroupSize} ${shares}×${depth} ${
    Object.values(tile).join("×")
  }${ragged ? " ragged" : ""}${accumulate ? " accumulate" : ""}${describePairing(pairing)}`;
}

/** Grid: one workgroup for each `outputsOf` rows of the weight, made by `spread`. */
export function rowProduct(variant: RowProduct): KernelSpec {
  const { shape, tile, subgroupSize, shares } = variant;
  const { elements, stride } = sliceOf(variant);
  const results = outputsOf(shape, tile) / (isPaired(variant) ? 2 : 1);
  const write = new Fragments(shape);
  return {
    needs: ["f16", "matrix"],
    bindings: [
      reads("w", "array<vec4<u32>>"),
      reads("x", "array<vec4<u32>>"),
      ...resultBindings(variant),
    ],
    params: [
      ...PRODUCT_PARAMS,
      ...resultParams(variant),
    ],
    source: /* wgsl */ `
      ${isPaired(variant) ? pairingWgsl(variant) : HALF_PACKING_WGSL}
      var<workgroup> ws: array<vec4<u32>, ${outputsOf(shape, tile) * stride}>;
      var<workgroup> xs: array<vec4<u32>, ${tile.columns * shape.n * stride}>;
      var<workgroup> parts: array<f32, ${meetingOf(variant)}>;
      ${sumOfWgsl(variant)}

      @diagnostic(off, chromium.subgroup_matrix_uniformity)
      @compute @workgroup_size(${threadsOf(variant)}) fn main(${BUILTINS}) {
        let width = params.partRows${isPaired(variant) ? " / 2u" : ""};
        let firstOutput = (${GROUP_INDEX}) * ${results}u;
        if (firstOutput >= width) { return; }
        let firstInput = params.firstInput;
        let subgroup = t / ${subgroupSize}u;
        let share = subgroup % ${shares}u;
        let ownOutput = subgroup / ${shares}u * ${tile.outputs * shape.m}u;
        ${eachSum(variant, (r, o, c) => write.zeroSums(`sum${r}_${o}_${c}`))}
        ${sliceOffsets(variant)}
        ${
      unroll(tile.ahead, (s) =>
        `if (${s * elements}u < params.eights) { ${loadWeights(variant, s, `${s * elements}u`)} }`)
    }
        ${loadColumns(variant, 0, "0u")}
        for (var first = 0u; first < params.eights; first += ${tile.ahead * elements}u) {
          ${unroll(tile.ahead, (s) => oneSlice(variant, s))}
        }
        ${storeSums(variant)}
      }`,
  };
}

function eachSum({ tile }: RowProduct, piece: (round: number, output: number, column: number) => string): string {
  return unroll(
    tile.rounds,
    (r) => unroll(tile.outputs, (o) => unroll(tile.columns, (c) => piece(r, o, c))),
  );
}

/** What a thread brings of a slice's rows: how many elements, and WGSL of each one's place; the last may not exist. */
interface Share {
  readonly count: number;
  readonly place: (
    i: number,
  ) => { readonly row: string; readonly element: string; readonly exists: string | undefined };
}

function shareOf(variant: RowProduct, rows: number): Share {
  const threads = threadsOf(variant);
  const { elements } = sliceOf(variant);
  const whole = Math.floor(rows * elements / threads);
  const index = (i: number) => `(t + ${i * threads}u)`;
  return {
    count: Math.ceil(rows * elements / threads),
    place: (i) => ({
      row: `${index(i)} / ${elements}u`,
      element: `${index(i)} % ${elements}u`,
      exists: i < whole ? undefined : `${index(i)} < ${rows * elements}u`,
    }),
  };
}

function weightShare(variant: RowProduct): Share {
  return shareOf(variant, outputsOf(variant.shape, variant.tile));
}

function columnShare(variant: RowProduct): Share {
  return shareOf(variant, variant.tile.columns * variant.shape.n);
}

function onlyIf(condition: string | undefined, statement: string): string {
  return condition === undefined ? statement : `if (${condition}) { ${statement} }`;
}

/**
 * Where a thread's elements lie in storage at k = 0. Columns beyond the last row repeat it: they are not stored, and conditions on the
 * loads of those that are would cost more than the loads.
 */
function sliceOffsets(variant: RowProduct): string {
  const { tile, shape, dtype, ragged } = variant;
  const [weights, columns] = [weightShare(variant), columnShare(variant)];
  const ofW = (i: number) => {
    const { row, element } = weights.place(i);
    const ofSlice = (s: number) =>
      `${declareEight(dtype, `w${s}_${i}`)}${ragged ? ` var insideW${s}_${i} = true;` : ""}`;
    return `let elementW${i} = ${element}; ${unroll(tile.ahead, ofSlice)}
        let atW${i} = (${weightRow(variant, row)}) * params.eights;`;
  };
  const ofX = (i: number) => {
    const { row, element } = columns.place(i);
    const input = (r: number) =>
      `min(firstInput + ${r * tile.columns * shape.n / HALVES}u + ${row} / ${HALVES}u, params.rows - 1u)`;
    const ofRound = (r: number) =>
      `let atX${r}_${i} = (${input(r)} + (${row}) % ${HALVES}u * params.rows) * params.eights;`;
    return `let elementX${i} = ${element}; var x${i}: vec4<u32>;
        ${unroll(tile.rounds, ofRound)}`;
  };
  return `${unroll(weights.count, ofW)}
        ${unroll(columns.count, ofX)}`;
}

/** The row of the weight that is a slice's row. */
function weightRow(variant: RowProduct, row: string): string {
  if (!isPaired(variant)) return `min(firstOutput + ${row}, width - 1u)`;
  const count = outputsOf(variant.shape, variant.tile) / 2;
  return pairedRow(variant, row, { first: "firstOutput", count, all: "width" });
}

function loadWeights(variant: RowProduct, slice: number, k: string): string {
  const { dtype, ragged } = variant;
  const { count, place } = weightShare(variant);
  return unroll(count, (i) => {
    const column = `elementW${i} + ${k}`;
    const into = `w${slice}_${i}`;
    const index = `atW${i} + ${ragged ? `min(${column}, params.eights - 1u)` : column}`;
    const fetch = fetchEight(dtype, "w", { into, index });
    return onlyIf(place(i).exists, ragged ? `insideW${slice}_${i} = ${column} < params.eights; ${fetch}` : fetch);
  });
}

/** What `loadWeights` brought, as halves: zeros beyond the columns. */
function storeWeights(variant: RowProduct, slice: number): string {
  const { dtype, ragged } = variant;
  const { count, place } = weightShare(variant);
  return unroll(count, (i) => {
    const to = `ws[${stagedAt(variant, place(i))}]`;
    const store = halvesOfEight(dtype, `w${slice}_${i}`, to);
    const guarded = ragged ? `if (insideW${slice}_${i}) { ${store} } else { ${to} = vec4<u32>(); }` : `{ ${store} }`;
    return onlyIf(place(i).exists, guarded);
  });
}

/** Beyond the weight's columns anything will do, as long as it is a number: it meets zeros. */
function loadColumns(variant: RowProduct, round: number, k: string): string {
  const { count, place } = columnShare(variant);
  return unroll(count, (i) => {
    const column = `elementX${i} + ${k}`;
    const within = variant.ragged ? `min(${column}, params.eights - 1u)` : column;
    return onlyIf(place(i).exists, `x${i} = x[atX${round}_${i} + ${within}];`);
  });
}

function storeColumns(variant: RowProduct): string {
  const { count, place } = columnShare(variant);
  return unroll(count, (i) => onlyIf(place(i).exists, `xs[${stagedAt(variant, place(i))}] = x${i};`));
}

function stagedAt(variant: RowProduct, { row, element }: { readonly row: string; readonly element: string }): string {
  return `(${row}) * ${sliceOf(variant).stride}u + ${element}`;
}

/** One slice of the weight, if there is that much of it left. */
function oneSlice(variant: RowProduct, slice: number): string {
  const { tile } = variant;
  const { elements } = sliceOf(variant);
  return `{
            let k = first + ${slice * elements}u;
            if (k < params.eights) {
              let next = k + ${elements}u;
              ${unroll(tile.rounds, (r) => oneRound(variant, slice, r))}
            }
          }`;
}

/** Some columns over one slice: stages what has arrived, asks for what comes next, and multiplies. */
function oneRound(variant: RowProduct, slice: number, round: number): string {
  const { tile } = variant;
  const later = `k + ${tile.ahead * sliceOf(variant).elements}u`;
  const isLast = round === tile.rounds - 1;
  return `workgroupBarrier();
          ${round === 0 ? storeWeights(variant, slice) : ""}
          ${storeColumns(variant)}
          workgroupBarrier();
          ${round === 0 ? `if (${later} < params.eights) { ${loadWeights(variant, slice, later)} }` : ""}
          ${
    isLast ? `if (next < params.eights) { ${loadColumns(variant, 0, "next")} }` : loadColumns(variant, round + 1, "k")
  }
          ${multiply(variant, round)}`;
}

function multiply(variant: RowProduct, round: number): string {
  const { shape, shares, depth, tile } = variant;
  const write = new Fragments(shape);
  const stride = sliceOf(variant).stride;
  const steps = depth / shape.k;
  return unroll(tile.turns * steps, (i) => {
    const k = Math.floor(i / steps) * shares * depth + i % steps * shape.k;
    const at = (row: string) =>
      `(${row}) * ${stride}u + share * ${depth / HALVES_AN_ELEMENT}u + ${k / HALVES_AN_ELEMENT}u`;
    const place = (array: string, row: string) => ({ array, at: at(row), stride: `${stride}u` });
    return `{
            ${
      unroll(
        tile.columns,
        (c) => `let column${c} = ${write.right(place("xs", `${c * shape.n}u`), "columns")};`,
      )
    }
            ${
      unroll(tile.outputs, (o) =>
        `{
              let weight = ${write.left(place("ws", `ownOutput + ${o * shape.m}u`))};
              ${unroll(tile.columns, (c) => write.accumulate(`sum${round}_${o}_${c}`, "weight", `column${c}`))}
            }`)
    }
          }`;
  });
}
