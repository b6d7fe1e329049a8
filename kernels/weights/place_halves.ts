/**
 * Rows of 16-bit numbers from upload memory into a weight of f16, checked and converted on the GPU: what the host would need most of
 * a load's time for. What is wrong shows in a flag, not at once.
 */

import { MAX_BF16_IN_HALF } from "../half.ts";
import type { Tensor } from "../tensor.ts";
import { convertBf16Rows } from "./bf16_rows.ts";
import { checkHalves } from "./check_halves.ts";
import type { SourceDType } from "./source_types.ts";
import type { Weight } from "./weight.ts";
import type { WriteTools } from "./write_rows.ts";

/** Whole rows in upload memory. */
export interface StagedHalves {
  readonly source: "F16" | "BF16";
  /** From its start on. */
  readonly staging: Tensor;
  readonly firstRow: number;
  readonly rows: number;
  /** u32: set to 1 where a number is not finite or beyond f16. */
  readonly flags: Tensor;
  readonly flag: number;
}

const HALF_BYTES = 2;
const EIGHT = 8;
const F16_INFINITY = 0x7c00;

/** Whether rows of a type can be placed in a weight so. */
export function arePlacedOnGpu(source: SourceDType, { parts }: Pick<Weight, "parts">): source is "F16" | "BF16" {
  return (source === "F16" || source === "BF16") && parts.every(({ dtype }) => dtype === "f16");
}

/** Records the copies of rows and what checks and converts them. */
export function placeHalves(
  { commands, scratch }: WriteTools,
  { parts, cols }: Pick<Weight, "parts" | "cols">,
  { source, staging, firstRow, rows, flags, flag }: StagedHalves,
): void {
  const rowBytes = cols * HALF_BYTES;
  for (const part of parts) {
    const first = Math.max(firstRow, part.firstRow);
    const count = Math.min(firstRow + rows, part.firstRow + part.rows) - first;
    if (count <= 0) continue;
    const from = (first - firstRow) * rowBytes;
    const byteLength = count * rowBytes;
    const eights = count * cols / EIGHT;
    const placed = first - part.firstRow;
    if (source === "F16") {
      const numbers = part.tensor;
      commands.copy(staging, numbers, { from, to: placed * rowBytes, byteLength });
      const firstEight = placed * cols / EIGHT;
      checkHalves(commands, { numbers, firstEight, eights, bound: F16_INFINITY, flags, flag });
      continue;
    }
    const raw = scratch.take("rows of a file", "u32", [byteLength / 4]);
    commands.copy(staging, raw, { from, byteLength });
    checkHalves(commands, { numbers: raw, firstEight: 0, eights, bound: MAX_BF16_IN_HALF + 1, flags, flag });
    convertBf16Rows(commands, { raw, part, cols, firstRow: placed, rows: count });
  }
}
