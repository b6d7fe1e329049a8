/** What a service configuration becomes. */

import assert from "node:assert/strict";
import { parseFlags } from "../../router/command_line.ts";
import { configFromFlags, resolveConfig, SERVICE_FLAGS } from "../../router/config.ts";
import { EMBEDDED_MODEL, modelSource } from "../../router/model_choice.ts";

function fromArgs(args: string[]): unknown {
  return resolveConfig(configFromFlags(parseFlags("serve", SERVICE_FLAGS, { args, env: {} })));
}

Deno.test("resolveConfig() defaults to the embedded model on loopback", () => {
  const config = resolveConfig();
  assert.equal(config.host, "127.0.0.1");
  assert.deepEqual(config.model, { directory: EMBEDDED_MODEL });
  assert.equal(config.modelName, "tide-10m");
  assert.ok(Deno.statSync(EMBEDDED_MODEL).isDirectory);
});

Deno.test("configFromFlags() without flags equals resolveConfig() without options", () => {
  assert.deepEqual(fromArgs([]), resolveConfig());
});

Deno.test("configFromFlags() carries every flag over", () => {
  const args =
    "--model /m/big --model-name other --host 0.0.0.0 --port 0 --kv-tokens 4096,auto --groups 3 --workers 2 --share-gpu --copies whole --sparse-exchange rows --attention sparse " +
    "--budget 64 --correction lossless --correct-every 8 --max-batch 2 --max-queued 0 --queue-timeout 90 --body-bytes 1024 " +
    "--text-threads 3 --text-ms 700 --drain-ms 5 --recover-ms 7 --log json --metrics-compat vllm --tool-format mistral " +
    "--api-key-file /k --allow-origin https://a.example,http://b:81 --allow-host gpu.lan --max-requests-per-client 3 " +
    "--max-connections 9 --tls-cert /c --tls-key /t";
  assert.deepEqual(fromArgs(args.split(" ")), {
    host: "0.0.0.0",
    port: 0,
    model: { directory: "/m/big" },
    modelName: "other",
    toolFormat: "mistral",
    groups: 3,
    workers: { kind: "spawn", count: 2, shareGpu: true, gpu: "auto" },
    kvTokens: [4096, "auto"],
    copies: "whole",
    sparseExchange: "rows",
    attention: {
      mode: "sparse",
      budget: 64,
      heads: "kv_head",
      correction: { mode: "lossless", every: 8, perToken: false },
    },
    access: {
      apiKeyFile: "/k",
      allowOrigin: ["https://a.example", "http://b:81"],
      allowHost: ["gpu.lan"],
      maxRequestsPerClient: 3,
      maxConnections: 9,
      tls: { cert: "/c", key: "/t" },
    },
    maxBatch: 2,
    maxQueued: 0,
    queueTimeoutMs: 90_000,
    bodyBytes: 1024,
    textThreads: 3,
    textMs: 700,
    drainMs: 5,
    recoverMs: 7,
    log: "json",
    metricsCompat: "vllm",
  });
});

Deno.test("configFromFlags() makes an adaptive budget of auto, with a coverage or the usual one", () => {
  const attention = (args: string) => (fromArgs(args.split(" ")) as { attention: unknown }).attention;
  const correction = { mode: "refresh", every: "auto", perToken: false };
  const adaptive = (coverage: number) => {
    return { mode: "auto", budget: { coverage, atMost: undefined }, heads: "kv_head", correction };
  };
  assert.deepEqual(attention("--budget auto"), adaptive(0.98));
  assert.deepEqual(attention("--budget auto --coverage .995"), adaptive(0.995));
  assert.throws(() => attention("--coverage 0.9"), { message: /coverage: it needs the budget "auto", given none$/ });
  assert.throws(() => attention("--budget 64 --coverage 0.9"), { message: /needs the budget "auto", given 64$/ });
  for (const coverage of [0, 1.01, NaN]) {
    assert.throws(() => resolveConfig({ attention: { mode: "auto", budget: "auto", coverage } }), {
      message: `Cannot configure coverage: must be above 0 and at most 1, given ${coverage}`,
    });
  }
});

Deno.test("resolveConfig() names a model after its directory or its shape", () => {
  assert.equal(resolveConfig({ model: "/models/llama/" }).modelName, "llama");
  assert.equal(resolveConfig({ random: "llama-3-8b" }).modelName, "llama-3-8b");
});

Deno.test("modelSource() refuses a directory and a shape at once", () => {
  assert.throws(() => modelSource({ model: "/m", random: "tiny" }), /Cannot choose a model: .*"\/m" and "tiny"/);
});

Deno.test("resolveConfig() refuses numbers out of bounds, naming bound and value", () => {
  assert.throws(() => resolveConfig({ port: 70000 }), {
    message: "Cannot configure port: must be an integer from 0 to 65535, given 70000",
  });
  assert.throws(() => resolveConfig({ kvTokens: 1 }), /kvTokens: must be an integer from 64/);
  assert.throws(() => resolveConfig({ attention: { mode: "sparse", budget: 15 } }), /budget: .* from 16 .* given 15/);
  assert.throws(() => resolveConfig({ maxBatch: 1.5 }), /maxBatch/);
  assert.throws(() => resolveConfig({ drainMs: NaN }), /drainMs/);
  assert.throws(() => resolveConfig({ textThreads: 1 }), /textThreads: must be an integer from 2 to 64, given 1$/);
  assert.throws(() => resolveConfig({ maxConnections: 0 }), /maxConnections: must be an integer from 1 to .* given 0/);
  assert.throws(() => resolveConfig({ maxRequestsPerClient: 0.5 }), /maxRequestsPerClient: .* given 0.5/);
});

Deno.test("resolveConfig() refuses half a key pair, and what is no origin or host", () => {
  assert.throws(() => resolveConfig({ tlsCert: "/c" }), /Cannot serve HTTPS: .* --tls-key is missing/);
  assert.throws(() => resolveConfig({ tlsKey: "/k" }), /Cannot serve HTTPS: .* --tls-cert is missing/);
  assert.throws(
    () => resolveConfig({ allowOrigin: ["https://a.example/"] }),
    /Cannot allow origin: .* given "https:\/\/a.example\/" \(did you mean https:\/\/a.example\?\)/,
  );
  assert.throws(() => resolveConfig({ allowHost: ["gpu.lan:80"] }), /Cannot allow host: .* without a port/);
});
