/**
 * Products whose results are made of two sums each, while those are still in the kernel: a gate and what it gates, half the weight apart,
 * or two dimensions of a head that turn against each other, half a head apart. Knows which rows of a weight belong together;
 * how they are summed is each kernel's business.
 */

import { PLACE_PARAMS, placeBindings, placeHeadsWgsl, type PlaceVariant } from "../attention/place_heads.ts";
import type { BindingSpec, ParamField } from "../pipeline.ts";
import { type ProductForm, type RowForm, writesRows } from "../rows.ts";
import { writes } from "../wgsl.ts";
import { describeGate, type ProductGate, productGateWgsl } from "./product.ts";

/** What a kernel makes of pairs of sums; of neither, nothing: it stores its sums as they are. */
export interface Pairing<Form extends ProductForm = RowForm> {
  readonly gate?: ProductGate<Form>;
  readonly heads?: PlaceVariant;
}

/** Whether sums are paired. */
export function isPaired({ gate, heads }: Pairing<ProductForm>): boolean {
  return (gate ?? heads) !== undefined;
}

/** The end of a kernel's name. */
export function describePairing({ gate, heads }: Pairing<ProductForm>): string {
  return heads === undefined ? describeGate(gate) : ` placed ${Object.values(heads)}`;
}

/** WGSL that kernels need beside their own. */
export function pairingWgsl({ gate, heads }: Pairing<ProductForm>): string {
  if (heads !== undefined) return placeHeadsWgsl(heads);
  return gate === undefined ? "" : productGateWgsl(gate);
}

/** Where results go: to `y`, or to the places of heads. */
export function resultBindings({ gate, heads }: Pairing): readonly BindingSpec[] {
  if (heads !== undefined) return placeBindings(heads);
  return [gate === undefined ? writes("y", "array<f32>") : writesRows("y", gate.form)];
}

/** Parameters that results need. */
export function resultParams({ heads }: Pairing<ProductForm>): readonly ParamField[] {
  return heads === undefined ? [] : PLACE_PARAMS;
}

/** WGSL expressions of a workgroup's pairs. */
export interface PairRange {
  /** Its first. */
  readonly first: string;
  /** How many it has. */
  readonly count: number;
  /** How many there are in all. */
  readonly all: string;
}

/** WGSL of the weight's row that is row `row` of a workgroup: the first sums of all of its pairs come first. */
export function pairedRow({ heads }: Pairing<ProductForm>, row: string, { first, count, all }: PairRange): string {
  const pair = `min(${first} + (${row}) % ${count}u, ${all} - 1u)`;
  const second = `(${row}) / ${count}u`;
  if (heads === undefined) return `${second} * ${all} + ${pair}`;
  const half = heads.headDim / 2;
  return `${pair} / ${half}u * ${heads.headDim}u + ${pair} % ${half}u + ${second} * ${half}u`;
}

/** WGSL that places four neighbouring pairs of a row, `pair` being the first. */
export function placeFourWgsl(
  { headDim }: PlaceVariant,
  { row, pair, sums }: { readonly row: string; readonly pair: string; readonly sums: readonly [string, string] },
): string {
  const half = headDim / 2;
  return `{
            let slot = (${pair}) / ${half}u;
            let low = (${pair}) % ${half}u / 4u;
            placeHeads(${row}, slot, low, biased(slot, low, ${sums[0]}), biased(slot, low + ${half / 4}u, ${sums[1]}));
          }`;
}
