/** The numbers that rows stand for, whatever their form. */

import { fromHalf } from "../../kernels/half.ts";
import type { Rows } from "../../kernels/rows.ts";
import type { GpuFixture } from "./gpu_fixture.ts";

/** How far halves are off: 2⁻¹² of each value, squared. */
export const ROW_FORM_NMSE = { f32: 0, f16: 1e-7 } as const;

/** Submits what was recorded and reads rows. */
export async function rowValues(
  fixture: GpuFixture,
  { tensor, form }: Rows,
  { rows, cols }: { readonly rows: number; readonly cols: number },
): Promise<Float64Array> {
  const count = rows * cols;
  if (form === "f32") return Float64Array.from((await fixture.floats(tensor)).subarray(0, count));
  fixture.commands.submit();
  const [bytes] = await fixture.gpu.read([{ tensor, byteLength: Math.ceil(count / 2) * 4 }]);
  if (bytes === undefined) throw new Error(`Cannot read ${tensor.label}: nothing came back`);
  return Float64Array.from(fromHalf(new Uint16Array(bytes.buffer, 0, count)));
}
