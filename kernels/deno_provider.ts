/** The WebGPU inside Deno: always there, the default wherever nothing better is, without matrix units. */

import { describeAdapter, requestDevice, subgroupSizeOf } from "./adapter.ts";
import { GpuError } from "./errors.ts";
import type { AdapterDescription, GpuProvider, OpenedDevice } from "./provider.ts";

class DenoProvider implements GpuProvider {
  readonly name = "deno";

  async adapters(): Promise<readonly AdapterDescription[]> {
    // It lists no adapters: asked again, it gives the same one.
    const adapter = await navigator.gpu?.requestAdapter();
    return adapter ? [describeAdapter(adapter)] : [];
  }

  async open(): Promise<OpenedDevice> {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) {
      throw new GpuError(
        "no_adapter",
        "Cannot open a GPU: no adapter was found (on Debian: apt-get install libvulkan1 mesa-vulkan-drivers)",
      );
    }
    const features = ["shader-f16", "timestamp-query"].filter((name) => adapter.features.has(name as GPUFeatureName));
    if (await supportsSubgroups()) features.push("subgroups");
    const device = await requestDevice(adapter, features);
    return {
      device,
      adapter: describeAdapter(adapter),
      features: new Set(features),
      traits: {
        // Here `enable subgroups;` is a parse error: the builtins just work.
        enables: {
          f16: features.includes("shader-f16") ? "enable f16;" : undefined,
          subgroups: features.includes("subgroups") ? "" : undefined,
          matrix: undefined,
        },
        mapAtOnce: true,
        mapOnceBefore: true,
        mapsInPlace: false,
        readWaitsForAll: true,
        offsetsAsList: false,
        fixesOffsets: false,
        settlesByTurns: false,
        compilesInParallel: false,
        subgroupSize: subgroupSizeOf(device.adapterInfo),
        matrix: [],
      },
      release: () => {},
    };
  }
}

/** The WebGPU inside Deno. */
export const DENO: GpuProvider = new DenoProvider();

/** The feature is hidden from `adapter.features` but can be requested; asking a second adapter does not spend the first. */
async function supportsSubgroups(): Promise<boolean> {
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) return false;
  try {
    const device = await adapter.requestDevice({ requiredFeatures: ["subgroups" as GPUFeatureName] });
    device.destroy();
    return true;
  } catch (error) {
    // A TypeError or an operation error means that the device lacks the feature.
    if (error instanceof Error) return false;
    throw error;
  }
}
