/**
 * The GPUs of this host as the system lists them, and how to keep some of them from a process: WebGPU can neither list
 * nor choose. Knows device nodes; opens no device.
 */

import { listSystemDirectory, readSystemFile } from "./system_files.ts";

/** A GPU of this host. */
export interface GpuDevice {
  /** Device nodes that lead to it; none where the system has no such thing. */
  readonly nodes: readonly string[];
  /** PCI address, when the system says. */
  readonly bus: string | undefined;
  /** What its driver calls it, or the driver itself, when the system says. */
  readonly name: string | undefined;
}

/** What is read of the system's files. */
export interface SystemFiles {
  /** Names in a directory; none when it is not there. */
  list(directory: string): readonly string[];
  /** Text of a file, empty when it is not there. */
  read(path: string): string;
}

/** Whether a process can be kept from a GPU, and if not, why. */
export type Hiding = { readonly kind: "possible" } | { readonly kind: "impossible"; readonly reason: string };

/**
 * The GPUs that a process on this host could use, in the order of their nodes. A Linux host without any computes on the
 * CPU; other systems do not say, and their WebGPU uses one.
 */
export function findGpus(os: typeof Deno.build.os = Deno.build.os, files: SystemFiles = SYSTEM_FILES): GpuDevice[] {
  if (os !== "linux") return [{ nodes: [], bus: undefined, name: undefined }];
  const renderNodes = numbered(files.list("/dev/dri"), "renderD").map((name) => {
    const facts = fields(files.read(`/sys/class/drm/${name}/device/uevent`), "=");
    return { node: `/dev/dri/${name}`, bus: facts.get("PCI_SLOT_NAME"), driver: facts.get("DRIVER") };
  });
  const nvidia = nvidiaGpus(files).map(({ nodes, ...gpu }) => {
    const own = renderNodes.filter(({ bus }) => bus !== undefined && bus === gpu.bus);
    return { ...gpu, nodes: [...nodes, ...own.map(({ node }) => node)] };
  });
  // Vulkan reaches NVIDIA's through their own nodes only.
  const others = renderNodes.filter(({ driver }) => driver !== "nvidia");
  return [...nvidia, ...others.map(({ node, bus, driver }) => ({ nodes: [node], bus, name: driver }))];
}

function nvidiaGpus(files: SystemFiles): GpuDevice[] {
  const known = files.list(NVIDIA_FACTS).map((bus) => {
    const facts = fields(files.read(`${NVIDIA_FACTS}/${bus}/information`), ":");
    return { bus, name: facts.get("Model"), minor: facts.get("Device Minor") };
  });
  return numbered(files.list("/dev"), "nvidia").map((node) => {
    const facts = known.find(({ minor }) => node === `nvidia${minor}`);
    return { nodes: [`/dev/${node}`], bus: facts?.bus, name: facts?.name };
  });
}

const NVIDIA_FACTS = "/proc/driver/nvidia/gpus";

/** A GPU in words. */
export function describeGpu({ name, bus, nodes }: GpuDevice): string {
  const paths = nodes.length === 0 ? "" : ` (${nodes.join(", ")})`;
  return `${name ?? "GPU"}${paths}${bus === undefined ? "" : ` at ${bus}`}`;
}

/**
 * Words to put before a command so that it cannot see some GPUs: it runs in a mount namespace of its own in which their
 * nodes are /dev/null, in the process that was started. Needs what `tryHiding` tries.
 */
export function hidingPrefix(hidden: readonly GpuDevice[]): readonly string[] {
  const nodes = hidden.flatMap((gpu) => gpu.nodes);
  if (nodes.length === 0) return [];
  const mounts = nodes.map((node) => `mount --bind /dev/null ${node}`);
  return ["unshare", "--mount", "sh", "-c", [...mounts, 'exec "$0" "$@"'].join(" && ")];
}

/** Tries whether this process may hide a GPU from a child. */
export async function tryHiding(gpu: GpuDevice): Promise<Hiding> {
  const [program, ...args] = [...hidingPrefix([gpu]), "true"];
  if (program === undefined || program === "true") return { kind: "impossible", reason: "it has no device node" };
  try {
    const { success, stderr } = await new Deno.Command(program, { args, stdout: "null", stderr: "piped" }).output();
    if (success) return { kind: "possible" };
    if (Deno.uid() !== 0) return { kind: "impossible", reason: "only root may" };
    const [line = "unshare failed"] = new TextDecoder().decode(stderr).split("\n");
    return { kind: "impossible", reason: line.trim() };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { kind: "impossible", reason: "unshare is not installed" };
  }
}

/** Names of a prefix and a number, by number. */
function numbered(names: readonly string[], prefix: string): string[] {
  const numberOf = (name: string) => name.startsWith(prefix) ? name.slice(prefix.length) : "";
  return names.filter((name) => /^\d+$/.test(numberOf(name))).sort((a, b) => Number(numberOf(a)) - Number(numberOf(b)));
}

/** Lines of a name and a value. */
function fields(text: string, separator: string): ReadonlyMap<string, string> {
  const entries = text.split("\n").flatMap((line) => {
    const at = line.indexOf(separator);
    return at < 0 ? [] : [[line.slice(0, at).trim(), line.slice(at + 1).trim()] as const];
  });
  return new Map(entries);
}

const SYSTEM_FILES: SystemFiles = {
  list: listSystemDirectory,
  read: (path) => readSystemFile(path) ?? "",
};
