/**
 * Which way to the GPU a process takes, decided in this one place. `auto` takes Dawn only where it gains something: on a
 * hardware adapter whose matrix units pass their self-test. On a software adapter it does not even load the package.
 */

import { DAWN } from "./dawn_provider.ts";
import { DENO } from "./deno_provider.ts";
import { GpuError } from "./errors.ts";
import { Gpu } from "./gpu.ts";
import { describeShape, type GpuProvider, type ProviderName } from "./provider.ts";
import { within } from "./within.ts";

/** What an operator may ask for. */
export const GPU_CHOICES = ["auto", "deno", "dawn"] as const;

/** `auto`, or a provider that is taken or fails. */
export type GpuChoice = typeof GPU_CHOICES[number];

/** The providers to choose from; replaced by tests. */
export type Providers = Readonly<Record<ProviderName, GpuProvider>>;

const PROVIDERS: Providers = { deno: DENO, dawn: DAWN };

/** Longer than a load from the cache takes (0.1 s), short enough for a start without a network. */
const PATIENCE_MS = 5000;

/** How to open a GPU. */
export interface OpenGpuOptions {
  /** @default "auto" */
  readonly choice?: GpuChoice | undefined;
  /** Called once with what was taken, and why it is not Dawn where that was tried. @default nothing */
  readonly log?: ((line: string) => void) | undefined;
  /** @default Deno's own and Dawn */
  readonly providers?: Providers;
  /** How long `auto` waits for Dawn to load; a download goes on for the next start. @default 5000 */
  readonly patienceMs?: number;
}

/**
 * Opens the GPU through the provider chosen.
 * @throws {GpuError} `no_adapter`; `provider_unavailable` when Dawn was asked for by name and cannot be loaded
 */
export async function openGpu(options: OpenGpuOptions = {}): Promise<Gpu> {
  const { choice = "auto", log = () => {}, providers = PROVIDERS, patienceMs = PATIENCE_MS } = options;
  const { gpu, reason } = choice === "auto"
    ? await openBest(providers, patienceMs)
    : { gpu: await Gpu.open(providers[choice]), reason: undefined };
  log(describeGpuChoice(gpu, reason));
  return gpu;
}

/** For people, e.g. `GPU: Dawn on NVIDIA H100, matrix units 16×16×16 f16→f32`. */
function describeGpuChoice({ info }: Gpu, reason: string | undefined): string {
  const name = info.provider === "dawn" ? "Dawn" : "Deno's own WebGPU";
  const [shape] = info.matrix;
  const matrix = shape === undefined ? "no matrix units" : `matrix units ${describeShape(shape)}, self-test passed`;
  return `GPU: ${name} on ${info.adapter}, ${matrix}${reason === undefined ? "" : ` (${reason})`}`;
}

interface Best {
  readonly gpu: Gpu;
  /** Why it is not Dawn, where Dawn was tried. */
  readonly reason: string | undefined;
}

async function openBest({ deno, dawn }: Providers, patienceMs: number): Promise<Best> {
  const [adapter] = await deno.adapters();
  if (adapter === undefined || adapter.software) return { gpu: await Gpu.open(deno), reason: undefined };
  const tried = await tryDawn(dawn, patienceMs);
  return tried instanceof Gpu
    ? { gpu: tried, reason: undefined }
    : { gpu: await Gpu.open(deno), reason: `not Dawn: ${tried}` };
}

/** @returns the GPU, or why Dawn would gain nothing */
async function tryDawn(dawn: GpuProvider, patienceMs: number): Promise<Gpu | string> {
  try {
    const adapters = await within(patienceMs, dawn.adapters());
    if (adapters === undefined) {
      return `it did not load within ${patienceMs / 1000} s; a download goes on, and is there at the next start`;
    }
    const [adapter] = adapters;
    if (adapter === undefined) return "it found no adapter";
    if (adapter.software) return `it found only ${adapter.name}, which computes on the CPU`;
    if (!adapter.matrix.some(({ result }) => result === "f32")) {
      return `${adapter.name} has no matrix units with sums in f32`;
    }
    const gpu = await Gpu.open(dawn);
    if (gpu.info.matrix.length > 0) return gpu;
    const faulty = gpu.info.faultyMatrix.map(describeShape).join(", ");
    await gpu.close();
    return `the matrix units of ${adapter.name} compute wrong: ${faulty}`;
  } catch (error) {
    if (error instanceof GpuError) return error.message;
    throw error;
  }
}
