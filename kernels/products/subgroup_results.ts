/** Stores what the subgroup product has summed: as they are, gated, or as heads in their places. */

import type { PlaceVariant } from "../attention/place_heads.ts";
import { type Pairing, placeFourWgsl } from "./paired_results.ts";
import { resultsOf, storeResult } from "./plain_results.ts";

/** What a workgroup has summed. */
export interface SummedTile extends Pairing {
  readonly accumulate: boolean;
  readonly threads: number;
  /** Weight rows, and input rows. */
  readonly rows: number;
  readonly inputs: number;
}

/** Statements that store it. They read `sum_of(input, row)`, `params`, `firstInput`, `first_n` and `width`. */
export function storeSummed(tile: SummedTile): string {
  return tile.heads === undefined ? store(tile) : place(tile, tile.heads);
}

function store(tile: SummedTile): string {
  const { rows, inputs, threads } = tile;
  const results = resultsOf(tile, rows);
  const sum = (row: string) => `sum_of(i / ${results}u, ${row})`;
  return `for (var i = t; i < ${inputs * results}u; i += ${threads}u) {
          let row = i % ${results}u;
          let m = firstInput + i / ${results}u;
          let n = first_n + row;
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
          if (input < params.rows && first_n + row < width) {
            ${placeFourWgsl(heads, { row: "input", pair: "first_n + row", sums: [four(0), four(results)] })}
          }
        }`;
}
