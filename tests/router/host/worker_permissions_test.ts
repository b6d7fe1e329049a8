import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { packagePermission, workerPermissions } from "../../../router/host/worker_permissions.ts";

Deno.test("packagePermission() lets native code be loaded from Deno's packages only, wherever they lie", () => {
  const of = (env: Record<string, string>, os = "linux") => packagePermission((name) => env[name], os);
  assert.equal(of({ HOME: "/nowhere" }), "--allow-ffi=/nowhere/.cache/deno/npm");
  assert.equal(of({ HOME: "/nowhere", XDG_CACHE_HOME: "/no/cache" }), "--allow-ffi=/no/cache/deno/npm");
  assert.equal(of({ HOME: "/nowhere", DENO_DIR: "/a,b" }), "--allow-ffi=/a,,b/npm");
  assert.equal(of({ HOME: "/Users/x" }, "darwin"), "--allow-ffi=/Users/x/Library/Caches/deno/npm");
});

Deno.test("packagePermission() names the folder that a link leads to: Deno compares paths without links", async () => {
  const folder = await Deno.realPath(await Deno.makeTempDir());
  try {
    await Deno.mkdir(`${folder}/real`);
    await Deno.symlink(`${folder}/real`, `${folder}/link`);
    const env = (name: string) => name === "DENO_DIR" ? `${folder}/link` : undefined;
    assert.equal(packagePermission(env, "linux"), `--allow-ffi=${folder}/real/npm`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** An environment that names no place for what was measured. */
const NOWHERE = () => undefined;

/** What every worker may read. */
const MODULES = ["kernels", "engine", "workers"].map((room) =>
  fileURLToPath(new URL(`../../../${room}`, import.meta.url))
)
  .join(",");

Deno.test("workerPermissions() lets a worker read its model, its own modules and nothing else: a directory, or every part of a split file", () => {
  const readable = (directory: string) =>
    workerPermissions({ directory }, [], NOWHERE).filter((flag) => flag.startsWith("--allow-read"));
  assert.deepEqual(readable("/models/a,b"), [`--allow-read=/models/a,,b,${MODULES}`]);
  assert.deepEqual(readable("/models/m-00002-of-00002.gguf"), [
    `--allow-read=/models/m-00001-of-00002.gguf,/models/m-00002-of-00002.gguf,/models/m-00002-of-00002.tidepool.json,${MODULES}`,
  ]);
  assert.deepEqual(
    workerPermissions({ random: "tiny" }, [], NOWHERE).filter((flag) => flag.startsWith("--allow-read")),
    [`--allow-read=${MODULES}`],
  );
});

Deno.test("workerPermissions() lets a worker write one file: what it measured of this machine's GPUs", () => {
  const files = (env: Record<string, string>) =>
    workerPermissions({ random: "tiny" }, [], (name) => env[name]).filter((flag) => /^--allow-(read|write)/.test(flag));
  assert.deepEqual(files({ HOME: "/home/x" }), [
    `--allow-read=/home/x/.cache/tidepool-tiles.json,${MODULES}`,
    "--allow-write=/home/x/.cache/tidepool-tiles.json",
  ]);
  assert.deepEqual(files({ HOME: "/home/x", XDG_CACHE_HOME: "/ca,che" }), [
    `--allow-read=/ca,,che/tidepool-tiles.json,${MODULES}`,
    "--allow-write=/ca,,che/tidepool-tiles.json",
  ]);
  assert.deepEqual(files({}), [`--allow-read=${MODULES}`]);
});

Deno.test("workerPermissions() lets a worker start the threads of its lanes", async () => {
  const probe = fileURLToPath(new URL("../../support/lane_probe.ts", import.meta.url));
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", ...workerPermissions({ random: "tiny" }, [], NOWHERE), probe],
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  assert.equal(text(stdout), "open; open", text(stderr));
});
