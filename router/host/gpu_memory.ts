/**
 * How much memory of each GPU of this host is in use, as far as its driver says. Knows two drivers' ways to say it;
 * opens no device.
 */

import { readSystemFile } from "./system_files.ts";
import type { GpuDevice } from "./gpu_devices.ts";

/** Where the numbers come from. */
export interface MemorySources {
  /** What `nvidia-smi` prints for `NVIDIA_QUERY`; undefined when it is not there or fails. */
  nvidiaSmi(): Promise<string | undefined>;
  /** Text of a file, undefined when it is not there. */
  read(path: string): Promise<string | undefined>;
}

/** Arguments of `nvidia-smi`. */
const NVIDIA_QUERY = ["--query-gpu=pci.bus_id,memory.used", "--format=csv,noheader,nounits"] as const;

const MIB = 2 ** 20;

/** Bytes in use on each GPU, in their order; undefined where no driver says. */
export async function usedGpuBytes(
  gpus: readonly GpuDevice[],
  sources: MemorySources = SYSTEM_SOURCES,
): Promise<readonly (number | undefined)[]> {
  const nvidia = gpus.some(({ nodes }) => nodes.some((node) => node.startsWith("/dev/nvidia")))
    ? usedByBus(await sources.nvidiaSmi() ?? "")
    : new Map<string, number>();
  return await Promise.all(gpus.map(async ({ bus, nodes }) => {
    const used = bus === undefined ? undefined : nvidia.get(shortBus(bus));
    return used ?? await usedByAmdgpu(nodes, sources);
  }));
}

function usedByBus(text: string): ReadonlyMap<string, number> {
  const lines = text.split("\n").map((line) => /^\s*([\da-f:.]+)\s*,\s*(\d+)\s*$/i.exec(line));
  return new Map(lines.flatMap((line) => {
    const [, bus, mebibytes] = line ?? [];
    return bus === undefined ? [] : [[shortBus(bus), Number(mebibytes) * MIB] as const];
  }));
}

async function usedByAmdgpu(nodes: readonly string[], { read }: MemorySources): Promise<number | undefined> {
  for (const node of nodes) {
    const text = await read(`/sys/class/drm/${node.replace(/.*\//, "")}/device/mem_info_vram_used`);
    if (text !== undefined && /^\d+\s*$/.test(text)) return Number(text);
  }
  return undefined;
}

/** The kernel writes domains of four digits, `nvidia-smi` of eight. */
function shortBus(bus: string): string {
  return bus.toLowerCase().replace(/^[\da-f]*?([\da-f]{4}:[\da-f]{2}:[\da-f]{2}\.)/, "$1");
}

const SYSTEM_SOURCES: MemorySources = {
  nvidiaSmi: async () => {
    try {
      const options: Deno.CommandOptions = { args: [...NVIDIA_QUERY], stderr: "null" };
      const { success, stdout } = await new Deno.Command("nvidia-smi", options).output();
      return success ? new TextDecoder().decode(stdout) : undefined;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  },
  read: (path) => Promise.resolve(readSystemFile(path)),
};
