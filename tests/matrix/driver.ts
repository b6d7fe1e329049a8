/**
 * A software Vulkan driver with matrix units, for machines without a GPU: Mesa of Debian unstable, unpacked with all its
 * libraries into a cache folder, used through that folder's own dynamic loader. Touches nothing of the system and needs
 * no root; apt runs with a configuration of its own and takes the mirror of the machine.
 */

import { join } from "node:path";
import { fileExists } from "../../router/host/file_exists.ts";

/** What the driver consists of; apt adds what these need. */
const PACKAGES = ["mesa-vulkan-drivers", "libvulkan1", "libstdc++6", "libgcc-s1"];

const LIBRARIES = "usr/lib/x86_64-linux-gnu";
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const UPDATE_MS = 120_000;
const DOWNLOAD_MS = 300_000;
const UNPACK_MS = 60_000;

/** Written last: a folder without it was left half-made. */
const COMPLETE = "complete";

/** Says why there is no such driver on this machine. */
export class DriverUnavailable extends Error {
  override readonly name = "DriverUnavailable";
  /** Whether such a machine should have it, so that its absence is a failure. */
  readonly isExpected: boolean;

  constructor(message: string, { isExpected }: { readonly isExpected: boolean }) {
    super(message);
    this.isExpected = isExpected;
  }
}

/** How to run Deno on the driver. */
export interface MatrixDriver {
  readonly program: string;
  /** In front of Deno's own arguments. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/**
 * Makes the driver at its first use (90 MB are downloaded, 330 MB kept), later finds it.
 * @param say gets one line before a download
 * @throws {DriverUnavailable} with the reason
 */
export async function matrixDriver(say: (line: string) => void): Promise<MatrixDriver> {
  const cache = cacheFolder();
  const root = join(cache, "root");
  if (!await fileExists(join(cache, COMPLETE))) await makeRoot(cache, await mirrorOfDebian(), say);
  const libraries = join(root, LIBRARIES);
  return {
    program: join(libraries, "ld-linux-x86-64.so.2"),
    args: ["--library-path", libraries, Deno.execPath()],
    env: {
      VK_DRIVER_FILES: join(root, "usr/share/vulkan/icd.d/lvp_icd.json"),
      // Kernels compile for seconds each on this driver.
      MESA_SHADER_CACHE_DIR: join(cache, "shaders"),
    },
  };
}

function cacheFolder(): string {
  const home = Deno.env.get("HOME");
  const base = Deno.env.get("XDG_CACHE_HOME") ?? (home === undefined ? "/var/cache" : join(home, ".cache"));
  return join(base, "tidepool", "matrix-driver");
}

/** The mirror that this machine's own apt uses. */
async function mirrorOfDebian(): Promise<string> {
  const { os, arch } = Deno.build;
  const isDebian = (await text("/etc/os-release")).match(/^ID=debian$/m) !== null;
  if (os !== "linux" || arch !== "x86_64" || !isDebian || !await fileExists(KEYRING)) {
    throw new DriverUnavailable(`needs Debian on x86_64, this is ${os} on ${arch}`, { isExpected: false });
  }
  const sources = await Promise.all(["/etc/apt/sources.list", ...await sourceFiles()].map(text));
  const all = sources.join("\n");
  const mirror = [...all.matchAll(/^(?:URIs:|deb (?:\[[^\]]*\] )?)\s*(\S+?)\/?(?:\s|$)/gm)]
    .map(([, uri = ""]) => uri)
    .find((uri) => /\/debian$/.test(uri));
  if (mirror !== undefined) return mirror;
  throw new DriverUnavailable("apt's sources name no mirror of Debian", { isExpected: true });
}

async function sourceFiles(): Promise<readonly string[]> {
  const folder = "/etc/apt/sources.list.d";
  if (!await fileExists(folder)) return [];
  return (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => join(folder, name)).sort();
}

async function makeRoot(cache: string, mirror: string, say: (line: string) => void): Promise<void> {
  say(`Making a software driver with matrix units in ${cache}: about 90 MB to download, once`);
  await remove(cache);
  const apt = join(cache, "apt");
  for (const folder of ["state/lists/partial", "cache/archives/partial"]) {
    await Deno.mkdir(join(apt, folder), { recursive: true });
  }
  await Deno.writeTextFile(join(apt, "state/status"), "");
  await Deno.writeTextFile(join(apt, "sources.list"), `deb [signed-by=${KEYRING}] ${mirror} sid main\n`);
  await Deno.writeTextFile(join(apt, "apt.conf"), aptConfiguration(apt));
  const env = { APT_CONFIG: join(apt, "apt.conf"), DEBIAN_FRONTEND: "noninteractive" };
  await run("apt-get", ["update", "-qq"], { env, deadlineMs: UPDATE_MS });
  const install = ["install", "--download-only", "-y", "-qq", ...PACKAGES];
  await run("apt-get", install, { env, deadlineMs: DOWNLOAD_MS });
  const root = join(cache, "root");
  // From Debian 12 on everything lies under /usr, and packages may name either place.
  for (const folder of ["lib", "lib64", "bin", "sbin"]) {
    await Deno.mkdir(join(root, "usr", folder), { recursive: true });
    await Deno.symlink(`usr/${folder}`, join(root, folder));
  }
  const archives = join(apt, "cache/archives");
  for await (const { name } of Deno.readDir(archives)) {
    if (name.endsWith(".deb")) {
      await run("dpkg", ["-x", join(archives, name), root], { env: {}, deadlineMs: UNPACK_MS });
    }
  }
  await remove(apt);
  await Deno.writeTextFile(join(cache, COMPLETE), "");
}

/** Nothing of the machine's own state is read but its keys. */
function aptConfiguration(apt: string): string {
  const settings = {
    "Dir::State": `${apt}/state`,
    "Dir::State::status": `${apt}/state/status`,
    "Dir::Cache": `${apt}/cache`,
    "Dir::Etc::sourcelist": `${apt}/sources.list`,
    "Dir::Etc::sourceparts": "-",
    "Dir::Etc::preferencesparts": "-",
    "APT::Architecture": "amd64",
    "APT::Install-Recommends": "false",
    "APT::Sandbox::User": "root",
    "Acquire::Languages": "none",
  };
  return Object.entries(settings).map(([name, value]) => `${name} "${value}";\n`).join("");
}

interface RunOptions {
  readonly env: Readonly<Record<string, string>>;
  readonly deadlineMs: number;
}

async function run(program: string, args: readonly string[], { env, deadlineMs }: RunOptions): Promise<void> {
  const command = new Deno.Command(program, {
    args: [...args],
    env,
    stdin: "null",
    signal: AbortSignal.timeout(deadlineMs),
  });
  const { success, stderr } = await command.output();
  if (success) return;
  const reason = new TextDecoder().decode(stderr).trim().split("\n", 1)[0];
  throw new DriverUnavailable(`${program} ${args[0]} failed: ${reason}`, { isExpected: true });
}

async function text(path: string): Promise<string> {
  return await fileExists(path) ? await Deno.readTextFile(path) : "";
}

async function remove(folder: string): Promise<void> {
  if (await fileExists(folder)) await Deno.remove(folder, { recursive: true });
}
