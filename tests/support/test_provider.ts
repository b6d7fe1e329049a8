/** Which way to the GPU the tests of kernels and engine take: `TIDEPOOL_GPU=dawn` runs them all on Dawn. */

import { DAWN } from "../../kernels/dawn_provider.ts";
import { DENO } from "../../kernels/deno_provider.ts";
import type { GpuProvider } from "../../kernels/provider.ts";

/**
 * The provider that the environment names; Deno's own without a name.
 * @throws {Error} for any other name: tests on the wrong provider would prove nothing
 */
export function testProvider(): GpuProvider {
  const name = Deno.env.get("TIDEPOOL_GPU") ?? DENO.name;
  const provider = [DENO, DAWN].find((candidate) => candidate.name === name);
  if (provider !== undefined) return provider;
  throw new Error(`Cannot choose a provider: TIDEPOOL_GPU must be deno or dawn, given "${name}"`);
}
