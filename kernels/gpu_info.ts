/** What code around a device may want to know of it: what it is, what it can do, and how large things may be. */

import type { MatrixShape, OpenedDevice, ProviderName } from "./provider.ts";

/** What the adapter is and can do, probed at start. */
export interface GpuInfo {
  /** The implementation of WebGPU that the device was opened through. */
  readonly provider: ProviderName;
  readonly adapter: string;
  readonly vendor: string;
  /** Whether it computes on the CPU. */
  readonly software: boolean;
  /** Whether it does, and a load of a vector costs as much as hundreds of its multiply-adds. */
  readonly loadsByLane: boolean;
  readonly subgroups: boolean;
  /** Invocations of a subgroup, when the adapter has one size only. */
  readonly subgroupSize: number | undefined;
  readonly shaderF16: boolean;
  /** Whether passes can be timed on the GPU's clock. */
  readonly timestamps: boolean;
  /** Every product that the adapter claims its matrix units to compute; best first. */
  readonly claimedMatrix: readonly MatrixShape[];
  /**
   * The best of them with sums in f32, and the same with fewer columns where there is one, as far as they computed right at
   * start; the only ones that kernels use.
   */
  readonly matrix: readonly MatrixShape[];
  /** Those that computed wrong. */
  readonly faultyMatrix: readonly MatrixShape[];
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
  readonly maxWorkgroupBytes: number;
  readonly maxInvocations: number;
  /** Whether mapped ranges can be read without awaiting the map, which saves 11 ms a read-back. */
  readonly fastReadBack: boolean;
}

/**
 * Whether an adapter of that name is Mesa's driver for the CPU as it was up to some version after 22: it branches and goes
 * through memory for each lane that it loads. The name tells LLVM's version only; distributions with a newer LLVM have a Mesa that
 * loads a vector at once.
 */
export function loadsByLane(adapter: string): boolean {
  return /llvmpipe \(LLVM (?:\d|1[0-5])\./.test(adapter);
}

/** What is known of a device before it was tested. */
export function describeDevice(provider: ProviderName, { device, adapter, features, traits }: OpenedDevice): GpuInfo {
  return {
    provider,
    adapter: adapter.name,
    vendor: adapter.vendor,
    software: adapter.software,
    loadsByLane: loadsByLane(adapter.name),
    subgroups: features.has("subgroups"),
    subgroupSize: traits.subgroupSize,
    shaderF16: features.has("shader-f16"),
    timestamps: features.has("timestamp-query"),
    claimedMatrix: traits.matrix,
    matrix: [],
    faultyMatrix: [],
    // Vulkan may report more than wgpu validates, and a binding must be a multiple of 4.
    maxBindingBytes: Math.floor(Number(device.limits.maxStorageBufferBindingSize) / 16) * 16,
    maxBufferBytes: Number(device.limits.maxBufferSize),
    maxWorkgroupBytes: Number(device.limits.maxComputeWorkgroupStorageSize),
    maxInvocations: Number(device.limits.maxComputeInvocationsPerWorkgroup),
    fastReadBack: false,
  };
}
