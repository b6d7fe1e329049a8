/**
 * Dawn, the WebGPU of Chromium, as the npm package `webgpu`: it has matrix units, and a read-back waits only for its own
 * submission. The package brings native code for five platforms (51 MB packed, 150 MB unpacked), so it is the one import
 * that is resolved only when it runs: nothing of it is downloaded before Dawn is asked for.
 */

import { describeAdapter, requestDevice, subgroupSizeOf } from "./adapter.ts";
import { GpuError, messageOf } from "./errors.ts";
import { paceGlobalImmediates, whileTurning } from "./turning.ts";
import type { AdapterDescription, GpuProvider, GpuTraits, MatrixShape, OpenedDevice } from "./provider.ts";

/**
 * The version stands in the import map. Not a literal in `import()`: the module graph must not hold it, or every start
 * would download it first (so would one without `npm-lazy-caching` in deno.json, for every package of the lock file).
 */
const PACKAGE: string = "webgpu";

/** The first load downloads the package; a network that swallows packets must not hold up a start for longer. */
const LOAD_MS = 180_000;

/**
 * `allow_unsafe_apis`: matrix units are an experiment of Dawn's. `vulkan_enable_f16_on_nvidia`: without it NVIDIA
 * adapters have no f16, and so no matrices of it.
 */
const TOGGLES = ["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia"];

/** `timestamp_quantization` rounds the GPU's clock to 0.1 ms, longer than most kernels take. */
const OFF = ["timestamp_quantization"];

const MATRIX_FEATURE = "chromium-experimental-subgroup-matrix";

const FEATURES = ["shader-f16", "subgroups", "timestamp-query", MATRIX_FEATURE];

/** What holds of Dawn on every adapter. */
const TRAITS = {
  mapAtOnce: false,
  mapOnceBefore: false,
  mapsInPlace: true,
  readWaitsForAll: false,
  offsetsAsList: true,
  fixesOffsets: true,
  settlesByTurns: true,
  compilesInParallel: true,
} as const;

/** What the package exports. */
interface DawnModule {
  create(flags: readonly string[]): GPU;
}

class DawnProvider implements GpuProvider {
  readonly name = "dawn";
  #loading: Promise<DawnModule> | undefined;

  async adapters(): Promise<readonly AdapterDescription[]> {
    const adapter = await this.#adapter(await this.#create());
    return adapter === null ? [] : [describeAdapter(adapter)];
  }

  async open(): Promise<OpenedDevice> {
    let instance: GPU | undefined = await this.#create();
    const adapter = await this.#adapter(instance);
    if (adapter === null) {
      throw new GpuError(
        "no_adapter",
        "Cannot open a GPU: Dawn found no adapter: it asks more of a driver than Deno's own WebGPU (Mesa: 25 or newer)",
      );
    }
    const features = FEATURES.filter((name) => adapter.features.has(name as GPUFeatureName));
    const description = describeAdapter(adapter);
    const device = await whileTurning(requestDevice(adapter, features));
    const matrix = features.includes(MATRIX_FEATURE) ? description.matrix : [];
    return {
      device,
      adapter: description,
      features: new Set(features),
      traits: { ...TRAITS, enables: enablesOf(features, matrix), subgroupSize: subgroupSizeOf(adapter.info), matrix },
      // The device dies with the instance, and the instance keeps the process alive.
      release: () => {
        instance = undefined;
      },
    };
  }

  async #create(): Promise<GPU> {
    this.#loading ??= load();
    const { create } = await this.#loading;
    const backend = Deno.build.os === "darwin" ? [] : ["backend=vulkan"];
    return create([`enable-dawn-features=${TOGGLES.join(",")}`, `disable-dawn-features=${OFF.join(",")}`, ...backend]);
  }

  /** Without a driver that it can use, Dawn rejects instead of finding nothing. */
  async #adapter(instance: GPU): Promise<GPUAdapter | null> {
    try {
      return await whileTurning(instance.requestAdapter({ powerPreference: "high-performance" }));
    } catch (cause) {
      throw new GpuError("no_adapter", `Cannot open a GPU: Dawn found no adapter: ${firstLine(cause)}`, { cause });
    }
  }
}

/** Dawn, loaded at its first use. */
export const DAWN: GpuProvider = new DawnProvider();

function enablesOf(features: readonly string[], matrix: readonly MatrixShape[]): GpuTraits["enables"] {
  const line = (feature: string, name: string) => features.includes(feature) ? `enable ${name};` : undefined;
  return {
    f16: line("shader-f16", "f16"),
    subgroups: line("subgroups", "subgroups"),
    matrix: matrix.length > 0 ? line(MATRIX_FEATURE, "chromium_experimental_subgroup_matrix") : undefined,
  };
}

async function load(): Promise<DawnModule> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it took over ${LOAD_MS / 1000} s`)), LOAD_MS);
  });
  paceGlobalImmediates();
  try {
    return await Promise.race([import(PACKAGE) as Promise<DawnModule>, late]);
  } catch (cause) {
    throw new GpuError("provider_unavailable", `Cannot load Dawn (npm package webgpu): ${explain(cause)}`, {
      cause,
    });
  } finally {
    clearTimeout(timer);
  }
}

/** What people can do about it, where the reason is one of the usual ones. */
function explain(cause: unknown): string {
  const reason = firstLine(cause);
  if (/Requires ffi access/.test(reason)) return "this process may not load native code (--allow-ffi)";
  if (/GLIBC(XX)?_|libc\.musl|ld-linux/.test(reason)) return `it needs glibc 2.34 or newer: ${reason}`;
  if (/dawn\.node/.test(reason)) return `there is no build for ${Deno.build.os} ${Deno.build.arch}: ${reason}`;
  return `not in Deno's cache, and the network does not give it: ${reason}`;
}

function firstLine(error: unknown): string {
  const text = messageOf(error);
  return text.split("\n", 1)[0] ?? text;
}
