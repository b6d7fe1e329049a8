/** Which GPUs are found in the listings of made-up hosts, and that a hidden node is really hidden. */

import assert from "node:assert/strict";
import { describeGpu, findGpus, hidingPrefix, type SystemFiles, tryHiding } from "../../../router/host/gpu_devices.ts";
import { withFiles } from "../../support/model_directory.ts";

/** Files by path; their directories follow. */
function host(files: Readonly<Record<string, string>>): SystemFiles {
  const paths = Object.keys(files);
  return {
    list: (directory) => [
      ...new Set(
        paths.filter((path) => path.startsWith(`${directory}/`)).map((path) =>
          path.slice(directory.length + 1).split("/")[0] ?? ""
        ),
      ),
    ],
    read: (path) => files[path] ?? "",
  };
}

const TWO_NVIDIA = {
  "/dev/null": "",
  "/dev/nvidiactl": "",
  "/dev/nvidia-uvm": "",
  "/dev/nvidia10": "",
  "/dev/nvidia0": "",
  "/dev/dri/card0": "",
  "/dev/dri/renderD128": "",
  "/dev/dri/renderD129": "",
  "/sys/class/drm/renderD128/device/uevent": "DRIVER=nvidia\nPCI_SLOT_NAME=0000:00:08.0\n",
  "/sys/class/drm/renderD129/device/uevent": "DRIVER=amdgpu\nPCI_ID=1002:73BF\nPCI_SLOT_NAME=0000:03:00.0\n",
  "/proc/driver/nvidia/gpus/0000:00:07.0/information": "Model: \t\t NVIDIA H200\nIRQ: 42\nDevice Minor: \t 0\n",
  "/proc/driver/nvidia/gpus/0000:00:08.0/information": "Model: \t\t NVIDIA H200\nDevice Minor: \t 10\n",
};

Deno.test("findGpus() lists each GPU once, by number, with all its nodes", () => {
  assert.deepEqual(findGpus("linux", host(TWO_NVIDIA)), [
    { nodes: ["/dev/nvidia0"], bus: "0000:00:07.0", name: "NVIDIA H200" },
    { nodes: ["/dev/nvidia10", "/dev/dri/renderD128"], bus: "0000:00:08.0", name: "NVIDIA H200" },
    { nodes: ["/dev/dri/renderD129"], bus: "0000:03:00.0", name: "amdgpu" },
  ]);
});

Deno.test("findGpus() finds GPUs of which the system shows nothing but their nodes", () => {
  const gpus = findGpus("linux", host({ "/dev/nvidia3": "", "/dev/dri/renderD128": "" }));
  assert.deepEqual(gpus.map(({ nodes }) => nodes), [["/dev/nvidia3"], ["/dev/dri/renderD128"]]);
  assert.deepEqual(gpus.map(describeGpu), ["GPU (/dev/nvidia3)", "GPU (/dev/dri/renderD128)"]);
});

Deno.test("findGpus() finds none on a bare Linux host, and one where the system does not say", () => {
  assert.deepEqual(findGpus("linux", host({ "/dev/null": "" })), []);
  assert.equal(findGpus("darwin", host({})).length, 1);
  assert.ok(Array.isArray(findGpus()), "this host can be asked");
});

Deno.test("hidingPrefix() hides every node of the others, and is empty when there is nothing to hide", () => {
  assert.deepEqual(hidingPrefix(findGpus("linux", host(TWO_NVIDIA)).slice(1)), [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount --bind /dev/null /dev/nvidia10 && mount --bind /dev/null /dev/dri/renderD128 && " +
    'mount --bind /dev/null /dev/dri/renderD129 && exec "$0" "$@"',
  ]);
  assert.deepEqual(hidingPrefix([]), []);
});

Deno.test("tryHiding() finds out whether the prefix works here: what it hides reads as empty, in the same process", async () => {
  await withFiles({ "node": "visible" }, async (directory) => {
    const gpu = { nodes: [`${directory}/node`], bus: undefined, name: undefined };
    const hiding = await tryHiding(gpu);
    if (hiding.kind === "impossible") return assert.notEqual(hiding.reason, "");
    const [program = "", ...args] = [...hidingPrefix([gpu]), "sh", "-c", 'echo "$$ $(cat "$0")"', `${directory}/node`];
    const child = new Deno.Command(program, { args, stdout: "piped" }).spawn();
    const { stdout } = await child.output();
    assert.equal(new TextDecoder().decode(stdout).trim(), `${child.pid}`);
    assert.equal(await Deno.readTextFile(`${directory}/node`), "visible", "only from the child");
    const missing = await tryHiding({ ...gpu, nodes: [`${directory}/missing`] });
    assert.match(missing.kind === "impossible" ? missing.reason : "possible", /missing/);
  });
});
