/**
 * Two implementations of WebGPU reach the same GPU: the one inside Deno, and Dawn. A provider opens devices through one of
 * them and says what differs; nothing outside this room and `doctor` depends on which one runs.
 */

/** `deno` is built in; `dawn` is a package that is loaded only where it is used. */
export type ProviderName = "deno" | "dawn";

/** What a kernel may need beyond plain WGSL: half-precision arithmetic, subgroup operations, matrix units. */
export type ShaderNeed = "f16" | "subgroups" | "matrix";

/** A product that a subgroup computes in one instruction: [m, k] · [k, n] added to [m, n]. */
export interface MatrixShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Element type of both factors. */
  readonly input: "f16";
  /** Element type of the sums. */
  readonly result: "f32" | "f16";
}

/** What code around a device must know about the provider it came from. */
export interface GpuTraits {
  /**
   * The line that a shader must start with to use a feature; empty where the provider takes the feature without one.
   * Undefined: this device does not have it.
   */
  readonly enables: Readonly<Record<ShaderNeed, string | undefined>>;
  /** A map may be readable before its promise settles: to be tested, because awaiting it costs 11 ms. */
  readonly mapAtOnce: boolean;
  /** A buffer must have been mapped once before such a read, or the process panics. */
  readonly mapOnceBefore: boolean;
  /** What is written into a mapped buffer is not copied once more; elsewhere it took longer than a write through the queue. */
  readonly mapsInPlace: boolean;
  /** A map waits for everything submitted, not only for what was submitted before it. */
  readonly readWaitsForAll: boolean;
  /** Dynamic offsets take 1.5 µs a call as a list and 2.1 µs as a typed array; elsewhere it is 0.9 and 0.2 µs. */
  readonly offsetsAsList: boolean;
  /**
   * A bind group that holds its offset takes 0.4 µs less to set than one that is given it, so that programs, which know it, bind such
   * groups; elsewhere that saves nothing, and programs share pipelines with other dispatches.
   */
  readonly fixesOffsets: boolean;
  /** Its promises settle only while the event loop turns, see `turning.ts`. */
  readonly settlesByTurns: boolean;
  /** Pipelines that are asked for asynchronously are compiled on other threads, several at a time. */
  readonly compilesInParallel: boolean;
  /** Invocations of a subgroup, when the adapter has one size only. */
  readonly subgroupSize: number | undefined;
  /** What the adapter says that its matrix units compute; best first. */
  readonly matrix: readonly MatrixShape[];
}

/** An adapter before a device is opened on it. */
export interface AdapterDescription {
  readonly name: string;
  readonly vendor: string;
  /** Whether it computes on the CPU. */
  readonly software: boolean;
  readonly matrix: readonly MatrixShape[];
}

/** A device and what is known about it. */
export interface OpenedDevice {
  readonly device: GPUDevice;
  readonly adapter: AdapterDescription;
  /** Features that the device was opened with. */
  readonly features: ReadonlySet<string>;
  readonly traits: GpuTraits;
  /** Releases what the device depends on; called after `device.destroy()`. */
  release(): void;
}

/** A way to a GPU. */
export interface GpuProvider {
  readonly name: ProviderName;
  /**
   * The adapters that `open` would take, in that order; opens none.
   * @throws {GpuError} `provider_unavailable` when the implementation cannot be loaded
   */
  adapters(): Promise<readonly AdapterDescription[]>;
  /**
   * Opens the first adapter, with every limit and feature that kernels use.
   * @throws {GpuError} `no_adapter` when there is none, `provider_unavailable` when the implementation cannot be loaded
   */
  open(): Promise<OpenedDevice>;
}

/** For people, e.g. `16×16×16 f16→f32`. */
export function describeShape({ m, n, k, input, result }: MatrixShape): string {
  return `${m}×${n}×${k} ${input}→${result}`;
}
