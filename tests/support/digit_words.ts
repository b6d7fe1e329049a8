/** Rows of digits as words: bits that kernels which write digits themselves are compared with. */

import { digitWords } from "../../kernels/digits.ts";
import { digitRows } from "../../kernels/products/digit_rows.ts";
import type { Rows } from "../../kernels/rows.ts";
import type { GpuFixture } from "./gpu_fixture.ts";

/** Where digits go: words that no kernel writes are zero. */
export function emptyDigits(
  fixture: GpuFixture,
  { rows, cols }: { readonly rows: number; readonly cols: number },
): Rows<"digits"> {
  return { tensor: fixture.zeros("u32", [rows, digitWords(cols)]), form: "digits" };
}

/** The words of f32 rows by the kernel that makes nothing but digits. */
export async function digitWordsOf(
  fixture: GpuFixture,
  x: Rows,
  shape: { readonly rows: number; readonly cols: number },
): Promise<Uint32Array<ArrayBuffer>> {
  const out = emptyDigits(fixture, shape);
  digitRows(fixture.commands, { x, out, ...shape });
  return await fixture.words(out.tensor);
}
