import assert from "node:assert/strict";
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

Deno.test("workerPermissions() lets a worker read its model and nothing else: a directory, or every part of a split file", () => {
  const readable = (directory: string) =>
    workerPermissions({ directory }).filter((flag) => flag.startsWith("--allow-read"));
  assert.deepEqual(readable("/models/a,b"), ["--allow-read=/models/a,,b"]);
  assert.deepEqual(readable("/models/m-00002-of-00002.gguf"), [
    "--allow-read=/models/m-00001-of-00002.gguf,/models/m-00002-of-00002.gguf,/models/m-00002-of-00002.tidepool.json",
  ]);
  assert.deepEqual(workerPermissions({ random: "tiny" }).filter((flag) => flag.startsWith("--allow-read")), []);
});
