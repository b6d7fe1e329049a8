/**
 * Makes sure that a Vulkan driver is installed before anything asks for a GPU.
 * Knows files and packages; never touches `navigator.gpu`, which looks for drivers only once in a process.
 */

import { GpuError } from "../../kernels/errors.ts";

/** The machine as far as drivers go; faked by tests. */
export interface DriverMachine {
  readonly os: string;
  readonly root: boolean;
  env(name: string): string | undefined;
  setEnv(name: string, value: string): void;
  /** Names in a directory; none when it does not exist. */
  list(directory: string): Promise<readonly string[]>;
  isFile(path: string): Promise<boolean>;
  /** @throws {Error} when the program does not exist or does not finish in time */
  run(program: string, args: readonly string[], deadlineMs: number): Promise<ProgramResult>;
}

/** How a program ended. */
export interface ProgramResult {
  readonly code: number;
  /** stdout, then stderr. */
  readonly output: string;
}

const PACKAGES = ["libvulkan1", "mesa-vulkan-drivers"];
const REMEDY = `apt-get update && apt-get install -y ${PACKAGES.join(" ")}`;
const UPDATE_DEADLINE_MS = 180_000;
const INSTALL_DEADLINE_MS = 600_000;
const LDCONFIG_DEADLINE_MS = 10_000;

/** Where drivers announce themselves; the last one is where NVIDIA's container runtime puts its own. */
const ICD_DIRECTORIES = [
  "/usr/share/vulkan/icd.d",
  "/usr/local/share/vulkan/icd.d",
  "/etc/vulkan/icd.d",
  "/usr/local/nvidia/share/vulkan/icd.d",
];

/** Searched when `ldconfig` is not there or does not know the library. */
const LIBRARY_DIRECTORIES = [
  "/usr/lib/x86_64-linux-gnu",
  "/usr/lib/aarch64-linux-gnu",
  "/usr/lib64",
  "/usr/lib",
  "/usr/local/lib",
];

/**
 * Installs Mesa's drivers when there is none and we may; elsewhere than on Linux the system brings its own.
 * @param say gets one line for each thing it does
 * @throws {GpuError} `no_adapter` with the command to run, when it cannot install them itself
 */
export async function ensureVulkanDriver(
  say: (line: string) => void,
  machine: DriverMachine = thisMachine,
): Promise<void> {
  if (machine.os !== "linux") return;
  // Mesa complains on stderr without it; children inherit it.
  if (!machine.env("XDG_RUNTIME_DIR")) machine.setEnv("XDG_RUNTIME_DIR", machine.env("TMPDIR") ?? "/tmp");
  if (await hasVulkanDriver(machine)) return;
  if (!machine.root || !(await hasApt(machine))) {
    const command = machine.root ? REMEDY : REMEDY.replaceAll("apt-get", "sudo apt-get");
    throw new GpuError("no_adapter", `Cannot open a GPU: no Vulkan driver is installed; install one with: ${command}`);
  }
  say(`No Vulkan driver found. Installing ${PACKAGES.join(" and ")}: ${REMEDY}`);
  await apt(machine, ["update", "-qq"], UPDATE_DEADLINE_MS);
  await apt(machine, ["install", "-y", "-qq", ...PACKAGES], INSTALL_DEADLINE_MS);
  if (!(await hasVulkanDriver(machine))) {
    throw new GpuError("no_adapter", `Cannot open a GPU: ${PACKAGES.join(" and ")} are installed but bring no driver`);
  }
  say("Vulkan driver installed.");
}

/** Whether both the Vulkan loader and at least one driver are there. */
async function hasVulkanDriver(machine: DriverMachine): Promise<boolean> {
  return await hasDriverFile(machine) && await hasLoader(machine);
}

async function hasDriverFile(machine: DriverMachine): Promise<boolean> {
  for (const variable of ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]) {
    for (const path of machine.env(variable)?.split(":") ?? []) {
      if (path !== "" && await machine.isFile(path)) return true;
    }
  }
  for (const directory of ICD_DIRECTORIES) {
    if ((await machine.list(directory)).some((name) => name.endsWith(".json"))) return true;
  }
  return false;
}

async function hasLoader(machine: DriverMachine): Promise<boolean> {
  for (const directory of [...(machine.env("LD_LIBRARY_PATH")?.split(":") ?? []), ...LIBRARY_DIRECTORIES]) {
    if (directory !== "" && await machine.isFile(`${directory}/libvulkan.so.1`)) return true;
  }
  if (!(await machine.isFile("/sbin/ldconfig"))) return false;
  const { output } = await machine.run("/sbin/ldconfig", ["-p"], LDCONFIG_DEADLINE_MS);
  return output.includes("libvulkan.so.1");
}

async function hasApt(machine: DriverMachine): Promise<boolean> {
  return await machine.isFile("/usr/bin/apt-get");
}

async function apt(machine: DriverMachine, args: readonly string[], deadlineMs: number): Promise<void> {
  const { code, output } = await machine.run("/usr/bin/apt-get", args, deadlineMs);
  if (code === 0) return;
  throw new GpuError(
    "no_adapter",
    `Cannot install a Vulkan driver: apt-get ${args.join(" ")} ended with ${code}: ${output.trim().slice(-500)}`,
  );
}

const thisMachine: DriverMachine = {
  os: Deno.build.os,
  get root() {
    return Deno.uid() === 0;
  },
  env: (name) => Deno.env.get(name),
  setEnv: (name, value) => Deno.env.set(name, value),
  async list(directory) {
    try {
      return (await Array.fromAsync(Deno.readDir(directory))).map(({ name }) => name);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return [];
      throw error;
    }
  },
  async isFile(path) {
    try {
      return (await Deno.stat(path)).isFile;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
      throw error;
    }
  },
  async run(program, args, deadlineMs) {
    const command = new Deno.Command(program, {
      args: [...args],
      env: { DEBIAN_FRONTEND: "noninteractive" },
      stdin: "null",
      signal: AbortSignal.timeout(deadlineMs),
    });
    const { code, stdout, stderr } = await command.output();
    const decoder = new TextDecoder();
    return { code, output: decoder.decode(stdout) + decoder.decode(stderr) };
  },
};
