/**
 * What a timed dispatch must read and compute at least: from its kernel's name, tensors and parameters, and for attention
 * from the step, since what rows see is known to the GPU alone. Knows operations by name; measures nothing.
 */

import type { ModelConfig } from "../../../engine/model/model_config.ts";
import type { TimedDispatch } from "../../../kernels/timestamps.ts";
import { WEIGHT_DTYPES, weightBytes, type WeightDType } from "../../../kernels/weights/format.ts";

/** Operations of one sequence's step. */
export interface ProfiledStep {
  readonly config: ModelConfig;
  /** Position of the first row. */
  readonly from: number;
  readonly rows: number;
  /** Positions that a sparse row reads. */
  readonly budget: number;
}

/** What a dispatch is counted as. */
export interface KernelWork {
  /** The operation and its shape: dispatches of the same name are added up. */
  readonly name: string;
  /** Undefined where nothing is counted; then only time is shown. */
  readonly bytes?: number;
  readonly flop?: number;
}

/** Most input rows of one dispatch of the matrix–vector product by teams; others take all that are left. */
const TEAM_ROWS = 8;

/** What one dispatch of a step does. */
export function workOf({ kernel, dispatch }: TimedDispatch, step: ProfiledStep): KernelWork {
  const [op = kernel] = kernel.split(" ");
  const { rows, partRows: outputs, eights, quads, firstInput } = dispatch.params;
  if (op.startsWith("attention")) return attentionWork(op, { kernel, dispatch }, step);
  if (op !== "embed" && rows !== undefined && outputs !== undefined && eights !== undefined) {
    const computed = Math.min(op === "team_product" ? TEAM_ROWS : Infinity, rows - (firstInput ?? 0));
    return productWork(op, { rows: computed, outputs, cols: eights * 8 }, weightDTypeOf(kernel));
  }
  if (op === "rms_norm" && rows !== undefined && quads !== undefined) {
    return { name: `${op} ${rows}×${quads * 4}`, bytes: 2 * rows * quads * 16 };
  }
  const { count } = dispatch.params;
  if (op === "swiglu" && count !== undefined) return { name: `${op} ${count * 4}`, bytes: 3 * count * 16 };
  return { name: op };
}

/** Names of products have the format of the weight after the operation. */
function weightDTypeOf(kernel: string): WeightDType {
  const [, word] = kernel.split(" ");
  return WEIGHT_DTYPES.find((dtype) => dtype === word) ?? "f32";
}

function productWork(
  op: string,
  { rows, outputs, cols }: { readonly rows: number; readonly outputs: number; readonly cols: number },
  dtype: WeightDType,
): KernelWork {
  return {
    name: `${op} ${rows}×${outputs}×${cols} ${dtype}`,
    bytes: weightBytes(dtype, outputs * cols) + rows * (cols + outputs) * 4,
    flop: 2 * rows * outputs * cols,
  };
}

/**
 * Each K and V row once for all rows of the dispatch, and each multiplication. Rows that follow each other in one sequence
 * are counted from the step's first position on, wherever among them the dispatch begins: a few of many thousands.
 */
function attentionWork(
  op: string,
  { dispatch }: TimedDispatch,
  { config, from, budget, ...step }: ProfiledStep,
): KernelWork {
  const { heads, kvHeads, headDim, slidingWindow = Infinity } = config;
  const { rows = step.rows, sets = 0, scoreStride = 0 } = dispatch.params;
  const gathered = sets > 0;
  const visible = Math.min(from + 1, slidingWindow);
  const kvRows = gathered ? Math.min(budget, visible) : Math.min(from + rows, slidingWindow + rows - 1);
  const visited = gathered ? rows * kvRows : rows * Math.min(visible + (rows - 1) / 2, slidingWindow);
  const kind = gathered ? "gathered" : scoreStride > 0 ? "dense, scores kept" : "dense";
  return {
    name: `${op} ${rows} row${rows === 1 ? "" : "s"} ${kind}`,
    bytes: kvRows * kvHeads * headDim * 2 * 2,
    flop: 4 * visited * heads * headDim,
  };
}
