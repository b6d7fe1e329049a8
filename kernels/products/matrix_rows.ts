/**
 * Dispatches the product of rows that attend densely on matrix units: few rows by one kernel, a few dozen by shares of k and a kernel
 * in which these meet. A row has the same bits by either.
 */

import { asHalves } from "./half_rows.ts";
import type { Pairing } from "./paired_results.ts";
import type { Commands, Dispatch } from "../pipeline.ts";
import type { Product } from "./product.ts";
import { rowProduct, rowProductName } from "./row_product.ts";
import { outputsOf, type RowProduct, type RowProductCut, rowsOf, rowTileFor, sliceDepthOf } from "./row_tile.ts";
import { shareProduct, shareProductName } from "./share_product.ts";
import { shareSums, shareSumsName, shareSumsOutputs } from "./share_sums.ts";
import { shareSumsOf, type ShareTile, shareTileFor } from "./share_tile.ts";
import type { Tensor } from "../tensor.ts";
import { spread } from "../wgsl.ts";

/** What becomes of a product's results: the pairing, and what it binds and takes as parameters in the end. */
export interface Results extends Pick<Dispatch, "tensors" | "params">, Pairing {}

/** A product and what becomes of it. */
export type Multiplied = Pick<Product, "weight" | "x" | "rows" | "accumulate" | "scratch"> & {
  readonly results: Results;
};

/** Dispatches a product of rows in any form. */
export function multiplyRows(commands: Commands, product: Multiplied, cut: RowProductCut): void {
  const { weight, x, rows, scratch, results: { tensors, params, ...pairing } } = product;
  const ends: RowEnds = { tensors, params, variant: { accumulate: product.accumulate ?? false, ...pairing } };
  const { tensor: halves } = asHalves(commands, scratch, { x, rows, cols: weight.cols, form: "both" });
  const { maxWorkgroupBytes } = commands.gpu.info;
  const tile = shareTileFor(cut, { rows, weightRows: weight.rows, maxWorkgroupBytes });
  if (tile === undefined) byRows(commands, { weight, rows, halves }, cut, ends);
  else byShares(commands, { weight, rows, halves, scratch }, { ...cut, tile }, ends);
}

/** What a product on matrix units ends with: its results' tensors and parameters, and what tells its kernel from others. */
interface RowEnds extends Pick<Dispatch, "tensors" | "params"> {
  readonly variant: Pick<RowProduct, "accumulate" | "gate" | "heads">;
}

type HalvedRows = Pick<Product, "weight" | "rows"> & { readonly halves: Tensor };

function byRows(
  commands: Commands,
  { weight, rows, halves }: HalvedRows,
  cut: RowProductCut,
  ends: RowEnds,
): void {
  const { cols } = weight;
  const tile = rowTileFor(cut, { rows, weightRows: weight.rows });
  const ragged = cols % sliceDepthOf(cut, tile) !== 0;
  const most = rowsOf(cut.shape, tile);
  for (let firstInput = 0; firstInput < rows; firstInput += most) {
    for (const { tensor, dtype, firstRow, rows: partRows } of weight.parts) {
      const variant = { ...cut, tile, dtype, ragged, ...ends.variant };
      commands.dispatch(commands.kernel(rowProductName(variant), () => rowProduct(variant)), {
        tensors: [tensor, halves, ...ends.tensors],
        params: {
          ...{ rows, firstInput, partRows, firstRow, weightRows: weight.rows, eights: cols / 8 },
          ...ends.params,
        },
        groups: spread(Math.ceil(partRows / outputsOf(cut.shape, tile))),
      });
    }
  }
}

/** Shares of k by workgroups of their own, and their sums after them, for all rows at once. */
function byShares(
  commands: Commands,
  { weight, rows, halves, scratch }: HalvedRows & Pick<Product, "scratch">,
  { tiles: _, tile, ...cut }: RowProductCut & { readonly tile: ShareTile },
  ends: RowEnds,
): void {
  const eights = weight.cols / 8;
  const ragged = weight.cols % sliceDepthOf(cut, tile) !== 0;
  for (const { tensor, dtype, firstRow, rows: partRows } of weight.parts) {
    const { columnBlocks, outputBlocks, floats } = shareSumsOf({ ...cut, tile }, { rows, weightRows: partRows });
    const sums = scratch.take("sums of shares", "f32", [floats]);
    const variant = { ...cut, tile, dtype, ragged };
    commands.dispatch(commands.kernel(shareProductName(variant), () => shareProduct(variant)), {
      tensors: [tensor, halves, sums],
      params: { rows, firstInput: 0, partRows, eights, outputBlocks, columnBlocks },
      groups: spread(cut.shares * columnBlocks * outputBlocks),
    });
    const meeting = { ...cut, ...ends.variant };
    const fragments = columnBlocks * tile.columns / cut.shape.n;
    commands.dispatch(commands.kernel(shareSumsName(meeting), () => shareSums(meeting)), {
      tensors: [sums, ...ends.tensors],
      params: {
        ...{ rows, firstInput: 0, partRows, firstRow, weightRows: weight.rows, eights },
        ...{ fragments, sumRows: outputBlocks * tile.outputs },
        ...ends.params,
      },
      groups: spread(fragments * Math.ceil(partRows / shareSumsOutputs(cut))),
    });
  }
}
