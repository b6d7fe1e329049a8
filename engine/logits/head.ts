/** From residual rows to logits: the final norm and the head, for rows that are drawn after and rows that are scored. */

import { at } from "../../kernels/at.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { rmsNorm } from "../../kernels/rms_norm.ts";
import { takeRows } from "../../kernels/rows.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { multiply, rowFormFor } from "../pass/products.ts";
import type { ProductFamily } from "../row_batch.ts";

/** Rows of logits made at once when every row of a span is scored or drawn after; bounds memory, not results. */
export const LOGIT_ROWS = 64;

/**
 * @param input.x f32 [≥ rows, hidden], before the final norm
 * @param input.name of the working memory that the logits lie in
 * @returns f32 [rows, vocabulary]
 */
export function headLogits(
  { commands, scratch, config, weights }: LoadedModel,
  { x, rows, product, name }: {
    readonly x: Tensor;
    readonly rows: number;
    readonly product: ProductFamily;
    readonly name: string;
  },
): Tensor {
  const form = rowFormFor(commands, product, { weight: weights.head, rows });
  const normed = takeRows(scratch, `normed for ${name}`, { form, rows, cols: config.hidden });
  rmsNorm(commands, {
    x,
    weight: weights.finalNorm,
    out: normed,
    rows,
    cols: config.hidden,
    epsilon: config.rmsNormEps,
  });
  const logits = scratch.take(name, "f32", [rows, config.vocabSize]);
  multiply(commands, product, { weight: weights.head, x: normed, y: logits, rows, scratch });
  return logits;
}

/** Copies rows of f32 [·, hidden] to the consecutive rows of another tensor, from row `firstRow` on. */
export function copyRows(
  { commands, config }: LoadedModel,
  { from, to, rows, firstRow = 0 }: {
    readonly from: Tensor;
    readonly to: Tensor;
    readonly rows: readonly number[];
    readonly firstRow?: number;
  },
): void {
  const rowBytes = config.hidden * 4;
  for (let i = 0; i < rows.length;) {
    const first = at(rows, i);
    let count = 1;
    while (rows[i + count] === first + count) count++;
    commands.copy(from, to, { from: first * rowBytes, to: (firstRow + i) * rowBytes, byteLength: count * rowBytes });
    i += count;
  }
}
