/**
 * `doctor`: what each way to the GPU offers on this machine, or why it is not there. Knows providers; opens Dawn only
 * where it may be worth its download.
 */

import { DAWN } from "../../kernels/dawn_provider.ts";
import { DENO } from "../../kernels/deno_provider.ts";
import { GpuError } from "../../kernels/errors.ts";
import type { GpuChoice } from "../../kernels/choose_provider.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { describeShape, type GpuProvider, type ProviderName } from "../../kernels/provider.ts";

/** What was found about one provider. */
export interface ProviderDiagnosis {
  readonly provider: ProviderName;
  /** The adapter that it opens; undefined when it is unavailable. */
  readonly adapter?: string;
  /** Products that the adapter claims its matrix units to compute, e.g. `16×16×16 f16→f32`. */
  readonly matrix?: readonly string[];
  /** Those that kernels would use: they passed the self-test. */
  readonly usable?: readonly string[];
  /** Those that failed it. */
  readonly faulty?: readonly string[];
  /** Why it is unavailable, or was not tried. */
  readonly reason?: string;
}

/** Tries both providers; Dawn not with `deno`, and with `auto` not on a software adapter. */
export async function diagnoseProviders(choice: GpuChoice): Promise<readonly ProviderDiagnosis[]> {
  const own = await diagnoseProvider(DENO);
  if (choice === "deno") return [own, { provider: "dawn", reason: "not tried: --gpu deno" }];
  const [adapter] = await DENO.adapters();
  if (choice === "auto" && adapter?.software === true) {
    return [own, { provider: "dawn", reason: "not tried on a software adapter (--gpu dawn tries it)" }];
  }
  return [own, await diagnoseProvider(DAWN)];
}

/** Opens a provider's GPU and closes it again. */
async function diagnoseProvider(provider: GpuProvider): Promise<ProviderDiagnosis> {
  const { name } = provider;
  try {
    const gpu = await Gpu.open(provider);
    const { adapter, claimedMatrix, matrix, faultyMatrix } = gpu.info;
    await gpu.close();
    return {
      provider: name,
      adapter,
      matrix: claimedMatrix.map(describeShape),
      usable: matrix.map(describeShape),
      faulty: faultyMatrix.map(describeShape),
    };
  } catch (error) {
    if (!(error instanceof GpuError)) throw error;
    return { provider: name, reason: error.message };
  }
}

/** For people, in one line. */
export function describeProvider(
  { adapter, matrix = [], usable = [], faulty = [], reason }: ProviderDiagnosis,
): string {
  if (adapter === undefined) return reason ?? "unavailable";
  if (matrix.length === 0) return `${adapter}; no matrix units`;
  const marked = matrix.map((shape) =>
    faulty.includes(shape) ? `${shape} (WRONG RESULT)` : usable.includes(shape) ? `${shape} (used)` : shape
  );
  return `${adapter}; matrix units: ${marked.join(", ")}`;
}
