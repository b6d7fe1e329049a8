/** Models from a hub on this machine: the cache's layout, going on after cuts, wrong content, tokens, and no network at all. */

import assert from "node:assert/strict";
import { join } from "node:path";

import { RepositoryCache } from "../../../router/hub/hub_cache.ts";
import type { HubConfig } from "../../../router/hub/hub_config.ts";
import { localModel, pull } from "../../../router/hub/pull.ts";
import { startHub } from "../../support/hub_server.ts";
import { withFiles } from "../../support/model_directory.ts";

const NAME = { repository: "org/model", quant: undefined };
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const text = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);
const WEIGHTS = Uint8Array.from({ length: 300_000 }, (_, i) => i * 7 % 251);

const FILES = {
  "README.md": text("not part of the model"),
  "config.json": text("{}"),
  "tokenizer.json": text(`{"a":1}`),
  "tokenizer_config.json": text(`{"b":2}`),
  "model.safetensors": WEIGHTS,
  "pytorch_model.bin": text("old"),
};

const QUICK = { pauseMs: () => 1 };

async function withHub(
  files: Readonly<Record<string, Uint8Array<ArrayBuffer>>>,
  body: (hub: ReturnType<typeof startHub>, config: HubConfig) => Promise<void>,
): Promise<void> {
  await using hub = startHub("org/model", files);
  await withFiles({}, (cache) => body(hub, { endpoint: hub.endpoint, cache, token: undefined, offline: false }));
}

Deno.test("pull() fetches a model's files only, into the layout of the shared cache, and nothing twice", async () => {
  await withHub(FILES, async (hub, config) => {
    const fractions: number[] = [];
    const path = await pull(NAME, { config, ...QUICK, onProgress: (bytes, total) => fractions.push(bytes / total) });
    const folder = join(config.cache, "models--org--model");
    assert.equal(path, join(folder, "snapshots", COMMIT));
    const names = (await Array.fromAsync(Deno.readDir(path))).map(({ name }) => name).sort();
    assert.deepEqual(names, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    assert.deepEqual(await Deno.readFile(`${path}/model.safetensors`), WEIGHTS);
    assert.match(await Deno.readLink(`${path}/model.safetensors`), /^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/);
    assert.match(await Deno.readLink(`${path}/config.json`), /^\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/);
    assert.equal(await Deno.readTextFile(join(folder, "refs/main")), COMMIT);
    assert.equal(fractions.at(-1), 1);
    assert.ok(fractions.every((fraction, i) => fraction >= (fractions[i - 1] ?? 0)), "progress goes forward");
    const before = hub.requests.length;
    assert.equal(await pull(NAME, { config }), path);
    assert.deepEqual(hub.requests.slice(before), ["hub /api/models/org/model/revision/main"]);
  });
});

Deno.test("pull() goes on where a connection was cut, also in a later call", async () => {
  await withHub({ ...FILES }, async (hub, config) => {
    // Small files come first; then the weights are cut three times.
    hub.faults = { cuts: [2, 1000, 1000, 1000, 100_000, 50_000] };
    const path = await pull(NAME, { config, ...QUICK });
    assert.deepEqual(await Deno.readFile(`${path}/model.safetensors`), WEIGHTS);
    const resumed = hub.requests.filter((line) => /^storage model\.safetensors bytes=\d+-$/.test(line));
    assert.equal(resumed.length, 3, hub.requests.join("\n"));
  });
  await withHub(FILES, async (hub, config) => {
    hub.faults = { cuts: [2, 7, 7, 100_000, 0, 0, 0, 0, 0] };
    await assert.rejects(pull(NAME, { config, ...QUICK }), {
      code: "hub_unreachable",
      message:
        /^Cannot fetch model\.safetensors: 100000 of 300000 bytes came, then nothing in 5 tries: .*; pull again to go on$/,
    });
    assert.equal(await new RepositoryCache(config.cache, "org/model").find(NAME), undefined);
    hub.requests.length = 0;
    const path = await pull(NAME, { config, ...QUICK });
    assert.deepEqual(await Deno.readFile(`${path}/model.safetensors`), WEIGHTS);
    assert.deepEqual(hub.requests.filter((line) => line.startsWith("storage")), [
      "storage model.safetensors bytes=100000-",
    ]);
  });
});

Deno.test("pull() begins again with a server that does not know ranges", async () => {
  await withHub(FILES, async (hub, config) => {
    hub.faults = { ignoresRanges: true, cuts: [2, 7, 7, 100_000] };
    const path = await pull(NAME, { config, ...QUICK });
    assert.deepEqual(await Deno.readFile(`${path}/model.safetensors`), WEIGHTS);
  });
});

Deno.test("pull() removes content with a wrong hash and says what was expected", async () => {
  await withHub(FILES, async (hub, config) => {
    hub.faults = { corrupts: true };
    await assert.rejects(pull(NAME, { config, ...QUICK }), {
      code: "hub_corrupt",
      message: /^Cannot keep config\.json: it has git [0-9a-f]{40} instead of [0-9a-f]{40}; it was removed$/,
    });
    const blobs = await Array.fromAsync(Deno.readDir(join(config.cache, "models--org--model/blobs")));
    assert.deepEqual(blobs, []);
    hub.faults = {};
    await pull(NAME, { config, ...QUICK });
  });
});

Deno.test("pull() says where it cannot write, without a stack", async () => {
  await withHub(FILES, async (_, config) => {
    const inTheWay = join(config.cache, "file");
    await Deno.writeTextFile(inTheWay, "");
    await assert.rejects(pull(NAME, { config: { ...config, cache: join(inTheWay, "hub") }, ...QUICK }), {
      code: "cache_unwritable",
      message: /^Cannot keep config\.json in .*file\/hub \(HF_HOME\): .*ot a directory/,
    });
  });
});

Deno.test("pull() gives its token to the hub and to no one that it redirects to", async () => {
  await withHub(FILES, async (hub, config) => {
    hub.faults = { token: "secret" };
    await assert.rejects(pull(NAME, { config, ...QUICK }), {
      code: "hub_refused",
      message: /needs a token with read access \(HF_TOKEN\), status 401$/,
    });
    // The storage server refuses every request that carries a token.
    await pull(NAME, { config: { ...config, token: "secret" }, ...QUICK });
  });
});

Deno.test("pull() says what a repository has in place of what was asked for", async () => {
  const gguf = { "m-Q4_K_M.gguf": WEIGHTS, "m-Q8_0.gguf": text("eight"), "mmproj-f16.gguf": text("image") };
  await withHub(gguf, async (hub, config) => {
    const path = await pull({ ...NAME, quant: "q8_0" }, { config });
    assert.equal(await Deno.readTextFile(path), "eight");
    assert.match(await pull(NAME, { config }), /m-Q4_K_M\.gguf$/);
    await assert.rejects(pull({ ...NAME, quant: "Q2_K" }, { config }), {
      code: "hub_refused",
      message: "Cannot take org/model: expected one GGUF file of Q2_K, found m-Q4_K_M, m-Q8_0",
    });
    hub.faults = { status: 404 };
    await assert.rejects(pull(NAME, { config }), { code: "hub_refused", message: /has no such thing, status 404$/ });
    hub.faults = { status: 503 };
    await assert.rejects(pull(NAME, { config }), { code: "hub_unreachable", message: /answered with status 503$/ });
  });
});

Deno.test("localModel() takes what is here without asking anyone, and pulls the rest", async () => {
  const parts = { "q/m-q-00001-of-00002.gguf": text("one"), "q/m-q-00002-of-00002.gguf": text("two") };
  await withHub(parts, async (hub, config) => {
    const offline = { ...config, offline: true };
    await assert.rejects(localModel("org/model:q", { config: offline }), { message: /HF_HUB_OFFLINE is set$/ });
    const path = await localModel("org/model:q", { config });
    assert.match(path, /q\/m-q-00001-of-00002\.gguf$/);
    const before = hub.requests.length;
    assert.equal(await localModel("org/model:q", { config: offline }), path);
    assert.equal(hub.requests.length, before);
    await Deno.remove(path.replace("00001-of", "00002-of"));
    await assert.rejects(localModel("org/model:q", { config: offline }), { code: "hub_unreachable" });
    assert.equal(await localModel(config.cache), config.cache);
    await assert.rejects(localModel("./no/such/path"), {
      name: "UsageError",
      message: "Cannot find model ./no/such/path: no such file or directory, nor a name of the hub (org/model)",
    });
  });
});

Deno.test("localModel() leaves a damaged index to the reader of the model", async () => {
  const index = "model.safetensors.index.json";
  const shard = "model-00001-of-00001.safetensors";
  const { "model.safetensors": weights, ...others } = FILES;
  const files = { ...others, [shard]: weights, [index]: text(`{"weight_map":{"a":"${shard}"}}`) };
  await withHub(files, async (_, config) => {
    const path = await localModel("org/model", { config });
    const file = await Deno.realPath(join(path, index));
    await Deno.writeTextFile(file, `{"weight_map":`);
    assert.equal(await localModel("org/model", { config: { ...config, offline: true } }), path);
  });
});
