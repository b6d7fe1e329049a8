/**
 * The product on matrix units for few rows, which is bound by reading the weight. The weight is the left factor; the columns of
 * the right one are rows of x, as halves. A workgroup takes some outputs of up to 64 rows; its subgroups share out k in turns,
 * and their sums meet in workgroup memory in a fixed order. The order over k depends on the cut alone: a row's bits do not
 * depend on how many rows come along, nor on its place among them.
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
import { rowPlanOf, type RowProduct } from "./row_tile.ts";

/** The kernel's name, different for every variant. */
export function rowProductName(
  { dtype, shape, subgroupSize, shares, depth, tile: { workgroups: _, ...tile }, ragged, accumulate, ...pairing }:
    RowProduct,
): string {
  return `row_product ${dtype} ${describeShape(shape)} by ${subgroupSize} ${shares}×${depth} ${
    Object.values(tile).join("×")
  }${ragged ? " ragged" : ""}${accumulate ? " accumulate" : ""}${describePairing(pairing)}`;
}

/** Grid: one workgroup for each `outputs` of the plan, rows of the weight, made by `spread`. */
export function rowProduct(variant: RowProduct): KernelSpec {
  const { shape, subgroupSize, shares, tile } = variant;
  const plan = rowPlanOf(variant);
  const write = new Fragments(shape);
  return {
    needs: ["f16", "matrix"],
    bindings: [reads("w", "array<vec4<u32>>"), reads("x", "array<vec4<u32>>"), ...resultBindings(variant)],
    params: [...PRODUCT_PARAMS, ...resultParams(variant)],
    source: /* wgsl */ `
      ${isPaired(variant) ? pairingWgsl(variant) : HALF_PACKING_WGSL}
      // A slice of the weight; in the end, the sums of all shares.
      var<workgroup> ws: array<vec4<u32>, ${plan.stagedWeights}>;
      var<workgroup> xs: array<vec4<u32>, ${plan.stagedInputs}>;
      ${sumOfWgsl(variant)}

      @diagnostic(off, chromium.subgroup_matrix_uniformity)
      @compute @workgroup_size(${plan.threads}) fn main(${BUILTINS}) {
        let width = params.partRows${isPaired(variant) ? " / 2u" : ""};
        let firstOutput = (${GROUP_INDEX}) * ${plan.results}u;
        if (firstOutput >= width) { return; }
        let firstInput = params.firstInput;
        let subgroup = t / ${subgroupSize}u;
        let share = subgroup % ${shares}u;
        let beside = subgroup / ${shares}u;
        let ownColumn = beside * ${plan.columns * shape.n}u;
        ${unroll(tile.outputs, (o) => unroll(plan.columns, (c) => write.zeroSums(`sum${o}_${c}`)))}
        ${placesWgsl(variant)}
        var k = 0u;
        ${walkWgsl(variant)}
        ${storeSums(variant)}
      }`,
  };
}

/** Whether a slice may not exist, or not wholly. */
const [EXISTING, BOUNDED] = [false, true];

/** All loads of the loop exist, so that none is conditional: what is left when there are no more slices to ask for comes after it. */
function walkWgsl(variant: RowProduct): string {
  const { ragged, tile: { ahead, inputsAhead } } = variant;
  const group = `${2 * ahead * rowPlanOf(variant).elements}u`;
  return `${unroll(ahead, (s) => loadWeights(variant, s, { slices: s, bounded: ragged }))}
        ${unroll(inputsAhead, (s) => loadInputs(variant, s, { slices: s, bounded: ragged }))}
        for (; k + ${group} <= params.eights;) {
          ${unroll(ahead, (s) => oneSlice(variant, s, askNext(variant, s, EXISTING)))}
        }
        ${ragged ? lastSlices(variant) : unroll(ahead, (s) => oneSlice(variant, s, askLast(variant, s)))}`;
}

/** Any number of slices, and the last one may end within; what is asked for beyond repeats what is there. */
function lastSlices(variant: RowProduct): string {
  const slice = (s: number) => oneSlice(variant, s, askNext(variant, s, BOUNDED), BOUNDED);
  return `for (; k < params.eights;) {
          ${unroll(variant.tile.ahead, (s) => `if (k < params.eights) { ${slice(s)} }`)}
        }`;
}

/** Stages the slice at k, which has arrived, asks for later ones in its place, and multiplies. */
function oneSlice(variant: RowProduct, slice: number, ask: string, bounded = EXISTING): string {
  return `workgroupBarrier();
          ${storeSlice(variant, slice, bounded)}
          workgroupBarrier();
          ${ask}
          ${multiply(variant)}
          k += ${rowPlanOf(variant).elements}u;`;
}

function askNext(variant: RowProduct, slice: number, bounded: boolean): string {
  const { ahead, inputsAhead } = variant.tile;
  return `${loadWeights(variant, slice, { slices: ahead, bounded })}
          ${loadInputs(variant, slice, { slices: inputsAhead, bounded })}`;
}

/** Of x alone less is asked for ahead. */
function askLast(variant: RowProduct, slice: number): string {
  const { ahead, inputsAhead } = variant.tile;
  return slice + inputsAhead < ahead ? loadInputs(variant, slice, { slices: inputsAhead, bounded: EXISTING }) : "";
}

/** The i-th element that a thread brings of a slice's rows; WGSL of its place. The last may not exist. */
interface Element {
  readonly row: string;
  readonly element: string;
  readonly exists: string | undefined;
}

function elementOf(variant: RowProduct, rows: number, i: number): Element {
  const { threads, elements } = rowPlanOf(variant);
  const index = `(t + ${i * threads}u)`;
  return {
    row: `${index} / ${elements}u`,
    element: `${index} % ${elements}u`,
    exists: (i + 1) * threads <= rows * elements ? undefined : `${index} < ${rows * elements}u`,
  };
}

function eachWeight(variant: RowProduct, piece: (i: number, place: Element) => string): string {
  const { outputs, weights } = rowPlanOf(variant);
  return unroll(weights, (i) => piece(i, elementOf(variant, outputs, i)));
}

function eachInput(variant: RowProduct, piece: (i: number, place: Element) => string): string {
  const { stagedRows, inputs } = rowPlanOf(variant);
  return unroll(inputs, (i) => piece(i, elementOf(variant, stagedRows, i)));
}

function onlyIf(condition: string | undefined, statement: string): string {
  return condition === undefined ? statement : `if (${condition}) { ${statement} }`;
}

/**
 * Where a thread's elements lie in storage at k = 0. Rows beyond the last repeat it: they are not stored, and conditions on the
 * loads of those that are would cost more than the loads.
 */
function placesWgsl(variant: RowProduct): string {
  const { dtype, tile: { ahead, inputsAhead } } = variant;
  const ofWeight = (i: number, { row, element }: Element) =>
    `let elementW${i} = ${element};
        let atW${i} = (${weightRow(variant, row)}) * params.eights;
        ${unroll(ahead, (s) => declareEight(dtype, `w${s}_${i}`))}`;
  const ofInput = (i: number, { row, element }: Element) =>
    `let elementX${i} = ${element};
        let atX${i} = min(firstInput + ${row}, params.rows - 1u) * params.eights;
        ${unroll(inputsAhead, (s) => `var x${s}_${i}: vec4<u32>;`)}`;
  return `${eachWeight(variant, ofWeight)}
        ${eachInput(variant, ofInput)}`;
}

/** The row of the weight that is a slice's row. */
function weightRow(variant: RowProduct, row: string): string {
  if (!isPaired(variant)) return `min(firstOutput + ${row}, width - 1u)`;
  return pairedRow(variant, row, { first: "firstOutput", count: rowPlanOf(variant).results, all: "width" });
}

/** Which slice is asked for: so many after the one at k; `bounded`: where it does not exist, the last elements. */
interface Asked {
  readonly slices: number;
  readonly bounded: boolean;
}

function columnOf(variant: RowProduct, element: string, { slices, bounded }: Asked): string {
  const column = `${element} + k + ${slices * rowPlanOf(variant).elements}u`;
  return bounded ? `min(${column}, params.eights - 1u)` : column;
}

function loadWeights(variant: RowProduct, slice: number, asked: Asked): string {
  return eachWeight(variant, (i, { exists }) => {
    const index = `atW${i} + ${columnOf(variant, `elementW${i}`, asked)}`;
    return onlyIf(exists, fetchEight(variant.dtype, "w", { into: `w${slice}_${i}`, index }));
  });
}

function loadInputs(variant: RowProduct, slice: number, asked: Asked): string {
  const into = slice % variant.tile.inputsAhead;
  return eachInput(
    variant,
    (i, { exists }) => onlyIf(exists, `x${into}_${i} = x[atX${i} + ${columnOf(variant, `elementX${i}`, asked)}];`),
  );
}

/** What has arrived, as halves; `bounded`: of the weight, zeros beyond the columns, so that anything does for x. */
function storeSlice(variant: RowProduct, slice: number, bounded: boolean): string {
  const { dtype, tile } = variant;
  const { stride } = rowPlanOf(variant);
  const input = slice % tile.inputsAhead;
  const to = (array: string, { row, element }: Element) => `${array}[(${row}) * ${stride}u + ${element}]`;
  return `${
    eachWeight(variant, (i, place) => {
      const staged = to("ws", place);
      const store = `{ ${halvesOfEight(dtype, `w${slice}_${i}`, staged)} }`;
      const guarded = `if (elementW${i} + k < params.eights) ${store} else { ${staged} = vec4<u32>(); }`;
      return onlyIf(place.exists, bounded ? guarded : store);
    })
  }
          ${eachInput(variant, (i, place) => onlyIf(place.exists, `${to("xs", place)} = x${input}_${i};`))}`;
}

/** Of one row alone, the columns beside it are read from wherever: what they give is not stored. */
function multiply(variant: RowProduct): string {
  const { shape, shares, depth, tile } = variant;
  const { columns, stride, inputStride } = rowPlanOf(variant);
  const write = new Fragments(shape);
  const steps = depth / shape.k;
  return unroll(tile.turns * steps, (i) => {
    const k = Math.floor(i / steps) * shares * depth + i % steps * shape.k;
    const place = (array: string, row: string, distance: number) => ({
      array,
      at: `(${row}) * ${distance}u + share * ${depth / HALVES_AN_ELEMENT}u + ${k / HALVES_AN_ELEMENT}u`,
      stride: `${distance}u`,
    });
    const column = (c: number) => write.right(place("xs", `ownColumn + ${c * shape.n}u`, inputStride), "columns");
    const weight = (o: number) => write.left(place("ws", `${o * shape.m}u`, stride));
    return `{
              ${unroll(columns, (c) => `let column${c} = ${column(c)};`)}
              ${
      unroll(tile.outputs, (o) =>
        `{
                let weight = ${weight(o)};
                ${unroll(columns, (c) => write.accumulate(`sum${o}_${c}`, "weight", `column${c}`))}
              }`)
    }
            }`;
  });
}
