/** Which of two kernels attends: one for GPUs, one for adapters that compute on the CPU, where lanes do not merge their reads. */

import type { GpuInfo } from "../gpu.ts";

/** Whom a kernel is made for. */
export type Tuning = "hardware" | "software";

/** The tuning given, else what suits the adapter. */
export function tuningFor({ software }: Pick<GpuInfo, "software">, given: Tuning | undefined): Tuning {
  return given ?? (software ? "software" : "hardware");
}
