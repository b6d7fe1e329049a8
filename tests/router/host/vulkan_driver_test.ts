/** When a driver is installed, when the user is shown how, and when nothing happens. */

import assert from "node:assert/strict";
import { type DriverMachine, ensureVulkanDriver } from "../../../router/host/vulkan_driver.ts";

const LOADER = "/usr/lib/x86_64-linux-gnu/libvulkan.so.1";
const APT = "/usr/bin/apt-get";
const MESA = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json";

interface Setting {
  readonly os?: string;
  readonly root?: boolean;
  readonly files?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Exit code of apt-get, and the files that a successful installation adds. */
  readonly apt?: { readonly code: number; readonly adds: readonly string[] };
  readonly ldconfig?: string;
}

function machineWith(setting: Setting): { machine: DriverMachine; ran: string[]; env: Map<string, string> } {
  const files = new Set(setting.files);
  const env = new Map(Object.entries(setting.env ?? {}));
  const ran: string[] = [];
  const machine: DriverMachine = {
    os: setting.os ?? "linux",
    root: setting.root ?? false,
    env: (name) => env.get(name),
    setEnv: (name, value) => void env.set(name, value),
    list: (directory) =>
      Promise.resolve(
        [...files].filter((path) => path.startsWith(`${directory}/`)).map((path) => path.slice(directory.length + 1)),
      ),
    isFile: (path) => Promise.resolve(files.has(path)),
    run(program, args) {
      ran.push([program, ...args].join(" "));
      if (program !== APT) return Promise.resolve({ code: 0, output: setting.ldconfig ?? "" });
      if (args[0] === "install") setting.apt?.adds.forEach((path) => files.add(path));
      return Promise.resolve({ code: setting.apt?.code ?? 0, output: "E: no network" });
    },
  };
  return { machine, ran, env };
}

async function ensure(setting: Setting): Promise<{ said: string[]; ran: string[]; env: Map<string, string> }> {
  const said: string[] = [];
  const { machine, ran, env } = machineWith(setting);
  await ensureVulkanDriver((line) => said.push(line), machine);
  return { said, ran, env };
}

Deno.test("ensureVulkanDriver() does nothing where a loader and a driver are", async () => {
  const settings: Setting[] = [
    { files: [LOADER, MESA] },
    { files: [LOADER, "/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json"] },
    { files: [LOADER, "/opt/my_icd.json"], env: { VK_DRIVER_FILES: "/none.json:/opt/my_icd.json" } },
    { files: ["/opt/vulkan/libvulkan.so.1", MESA], env: { LD_LIBRARY_PATH: "/opt/vulkan" } },
    { os: "darwin" },
  ];
  for (const setting of settings) {
    const { said, ran } = await ensure({ root: true, ...setting });
    assert.deepEqual([said, ran], [[], []]);
  }
});

Deno.test("ensureVulkanDriver() asks ldconfig for a loader elsewhere", async () => {
  const { ran } = await ensure({ files: [MESA, "/sbin/ldconfig"], ldconfig: "libvulkan.so.1 => /odd/libvulkan.so.1" });
  assert.deepEqual(ran, ["/sbin/ldconfig -p"]);
});

Deno.test("ensureVulkanDriver() installs Mesa as root where apt-get is, and says so", async () => {
  const { said, ran } = await ensure({ root: true, files: [APT], apt: { code: 0, adds: [LOADER, MESA] } });
  assert.deepEqual(ran, [`${APT} update -qq`, `${APT} install -y -qq libvulkan1 mesa-vulkan-drivers`]);
  assert.match(said[0] ?? "", /apt-get install -y libvulkan1 mesa-vulkan-drivers/);
});

Deno.test("ensureVulkanDriver() installs the loader for a driver that has none", async () => {
  const { ran } = await ensure({ root: true, files: [APT, MESA], apt: { code: 0, adds: [LOADER] } });
  assert.equal(ran.length, 2);
});

Deno.test("ensureVulkanDriver() names the exact command when it may not install", async () => {
  await assert.rejects(ensure({ files: [APT] }), {
    code: "no_adapter",
    message: "Cannot open a GPU: no Vulkan driver is installed; install one with: " +
      "sudo apt-get update && sudo apt-get install -y libvulkan1 mesa-vulkan-drivers",
  });
  await assert.rejects(ensure({ root: true }), /install one with: apt-get update/);
});

Deno.test("ensureVulkanDriver() reports what apt-get said when it fails", async () => {
  await assert.rejects(
    ensure({ root: true, files: [APT], apt: { code: 100, adds: [] } }),
    /apt-get update -qq ended with 100: E: no network/,
  );
  await assert.rejects(ensure({ root: true, files: [APT], apt: { code: 0, adds: [] } }), /bring no driver/);
});

Deno.test("ensureVulkanDriver() gives Mesa a runtime directory but respects one that is set", async () => {
  assert.equal((await ensure({ files: [LOADER, MESA] })).env.get("XDG_RUNTIME_DIR"), "/tmp");
  const { env } = await ensure({ files: [LOADER, MESA], env: { XDG_RUNTIME_DIR: "/run/user/7" } });
  assert.equal(env.get("XDG_RUNTIME_DIR"), "/run/user/7");
});
