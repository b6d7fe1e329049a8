/** Stores what the subgroup product has summed: as they are, gated, or as heads in their places. */

import type { PlaceVariant } from "../attention/place_heads.ts";
import { DIGIT_LANES, storeDigits } from "../digits.ts";
import type { ProductForm } from "../rows.ts";
import { GROUP } from "../weights/format.ts";
import { type Pairing, placeFourWgsl } from "./paired_results.ts";
import { resultsOf, storeResult } from "./plain_results.ts";

/** What a workgroup has summed. */
export interface SummedTile extends Pairing<ProductForm> {
  readonly accumulate: boolean;
  readonly threads: number;
  /** Weight rows of a round, and input rows. */
  readonly rows: number;
  readonly inputs: number;
}

/** Statements that store it. They read `sum_of(input, row)`, `params`, `firstInput`, `firstResult` and `width`. */
export function storeSummed(tile: SummedTile): string {
  if (tile.gate?.form === "digits") return storeGroup(tile);
  return tile.heads === undefined ? store(tile) : place(tile, tile.heads);
}

function store(tile: SummedTile): string {
  const { rows, inputs, threads } = tile;
  const results = resultsOf(tile, rows);
  const sum = (row: string) => `sum_of(i / ${results}u, ${row})`;
  return `for (var i = t; i < ${inputs * results}u; i += ${threads}u) {
          let row = i % ${results}u;
          let m = firstInput + i / ${results}u;
          let n = firstResult + row;
          if (m < params.rows && n < width) {
            ${storeResult(tile, [sum("row"), sum(`row + ${results}u`)])}
          }
        }`;
}

/** Four pairs of an input row at a time. */
function place(tile: SummedTile, heads: PlaceVariant): string {
  const { rows, inputs, threads } = tile;
  const results = resultsOf(tile, rows);
  const fours = results / 4;
  const four = (first: number) =>
    `vec4<f32>(${[0, 1, 2, 3].map((c) => `sum_of(i / ${fours}u, row + ${first + c}u)`).join(", ")})`;
  return `for (var i = t; i < ${inputs * fours}u; i += ${threads}u) {
          let row = i % ${fours}u * 4u;
          let input = firstInput + i / ${fours}u;
          if (input < params.rows && firstResult + row < width) {
            ${placeFourWgsl(heads, { row: "input", pair: "firstResult + row", sums: [four(0), four(results)] })}
          }
        }`;
}

/** The rounds have the 32 results of a group of digits; eight threads of an input row have four each. */
function storeGroup({ rows, inputs }: SummedTile): string {
  const results = rows / 2;
  const four = (first: number) =>
    `vec4<f32>(${[0, 1, 2, 3].map((c) => `sum_of(input, row + ${first + c}u)`).join(", ")})`;
  const place = { row: "m", group: `firstResult / ${GROUP}u`, groups: `width / ${GROUP}u` };
  return `{
        let lane = t % ${DIGIT_LANES}u;
        let input = min(t / ${DIGIT_LANES}u, ${inputs - 1}u);
        let m = firstInput + input;
        let row = 4u * lane / ${results}u * ${rows}u + 4u * lane % ${results}u;
        ${
    storeDigits("y", {
      ...{ value: `gated(${four(0)}, ${four(results)})`, lane: "lane", place },
      exists: `t < ${DIGIT_LANES * inputs}u && m < params.rows`,
    })
  }
        }`;
}
