/** An adapter as WebGPU describes it, whichever provider it came from: its name, its matrix units, a device with all its limits. */

import type { AdapterDescription, MatrixShape } from "./provider.ts";

const REQUESTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
] as const;

/** A configuration as Dawn lists it. */
interface SubgroupMatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** What an adapter is; its matrix units only where the provider shows them. */
export function describeAdapter(adapter: GPUAdapter): AdapterDescription {
  const { device, description, vendor } = adapter.info;
  return {
    name: description || device || vendor || "unnamed adapter",
    vendor,
    software: adapter.info.isFallbackAdapter ||
      /llvmpipe|lavapipe|swiftshader|software/i.test(`${device} ${description}`),
    matrix: matrixShapes(adapter.info),
  };
}

/** Opens a device with all the limits that the adapter has and those of the features that it lists. */
export async function requestDevice(adapter: GPUAdapter, features: readonly string[]): Promise<GPUDevice> {
  const requiredLimits: Record<string, number> = {};
  for (const name of REQUESTED_LIMITS) requiredLimits[name] = Number(adapter.limits[name]);
  return await adapter.requestDevice({ requiredFeatures: features as GPUFeatureName[], requiredLimits });
}

/** The size of every subgroup, when there is one. */
export function subgroupSizeOf({ subgroupMinSize, subgroupMaxSize }: GPUAdapterInfo): number | undefined {
  return subgroupMinSize > 0 && subgroupMinSize === subgroupMaxSize ? subgroupMinSize : undefined;
}

/** Sums in f32 before sums in f16, then the larger product first: it needs the fewest instructions. */
function matrixShapes(info: GPUAdapterInfo): readonly MatrixShape[] {
  const configs = (info as { readonly subgroupMatrixConfigs?: Iterable<SubgroupMatrixConfig> }).subgroupMatrixConfigs;
  const shapes = [...configs ?? []].flatMap(({ componentType, resultComponentType: result, M, N, K }) =>
    componentType === "f16" && (result === "f32" || result === "f16")
      ? [{ m: M, n: N, k: K, input: "f16", result } as const]
      : []
  );
  const rank = ({ m, n, k, result }: MatrixShape) => (result === "f32" ? 0 : -(2 ** 32)) + m * n * k;
  return shapes.sort((a, b) => rank(b) - rank(a));
}
