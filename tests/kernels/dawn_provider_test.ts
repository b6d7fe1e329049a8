import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

async function deno(args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const command = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    signal: AbortSignal.timeout(60_000),
  });
  const { success, stdout, stderr } = await command.output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

Deno.test("Dawn's package is in no module graph: nothing is downloaded before it is asked for", async () => {
  const graph = JSON.parse(await deno(["info", "--json", "mod.ts"]));
  const modules: readonly { readonly specifier: string }[] = graph.modules;
  const packages = modules.filter(({ specifier }) => specifier.startsWith("npm:"));
  assert.ok(packages.some(({ specifier }) => /\bhono@/.test(specifier)), "the listing holds packages at all");
  assert.deepEqual(packages.filter(({ specifier }) => /\bwebgpu@/.test(specifier)), []);
  // Without it, Deno downloads every package of the lock file at every start.
  const { unstable } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  assert.ok(unstable.includes("npm-lazy-caching"));
});

Deno.test("openGpu() says why Dawn cannot be had where Dawn is neither cached nor to be downloaded", async () => {
  const cache = await Deno.makeTempDir();
  const script = `
    import { openGpu } from "${new URL("../../kernels/choose_provider.ts", import.meta.url)}";
    await openGpu({ choice: "dawn" }).catch(({ code, message }) => console.log(code, message));
    Deno.exit(0);`;
  try {
    await Deno.writeTextFile(`${cache}/choose.ts`, script);
    const args = ["run", "-A", "--no-check", "--cached-only", "--config", `${ROOT}deno.json`, `${cache}/choose.ts`];
    const answer = await deno(args, { DENO_DIR: `${cache}/deno` });
    assert.match(
      answer,
      /^provider_unavailable Cannot load Dawn \(npm package webgpu\): not in Deno's cache, and the network does not give it: /,
    );
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
});
