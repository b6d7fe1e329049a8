/** Settings of workers, and which of them contradict each other. */

import assert from "node:assert/strict";
import { parseFlags } from "../../../router/command_line.ts";
import { configFromFlags, resolveConfig, SERVICE_FLAGS } from "../../../router/config.ts";
import { kvTokensOfEach, resolveWorkers } from "../../../router/host/worker_config.ts";

function fromArgs(args: string): ReturnType<typeof resolveConfig> {
  const words = args === "" ? [] : args.split(" ");
  return resolveConfig(configFromFlags(parseFlags("serve", SERVICE_FLAGS, { args: words, env: {} })));
}

Deno.test("resolveWorkers() starts one worker by default", () => {
  assert.deepEqual(resolveWorkers({}), {
    groups: 1,
    workers: { kind: "spawn", count: 1, shareGpu: false, gpu: "auto" },
    kvTokens: ["auto"],
    copies: "auto",
    sparseExchange: "states",
  });
});

Deno.test("resolveWorkers() takes workers to join from the command line, with their secret", () => {
  const { workers, kvTokens } = fromArgs("--join a:1,[::1]:2 --secret-file /run/secret --kv-tokens 640,128");
  assert.deepEqual(workers, {
    kind: "join",
    source: { kind: "static", addresses: [{ hostname: "a", port: 1 }, { hostname: "::1", port: 2 }] },
    minWorkers: 1,
    secretFile: "/run/secret",
  });
  assert.deepEqual(kvTokens, [640, 128]);
  assert.equal(fromArgs("--workers 2 --copies whole").copies, "whole");
  assert.deepEqual(fromArgs("--workers auto").workers, { kind: "spawn", count: "auto", shareGpu: false, gpu: "auto" });
});

for (
  const [args, message] of [
    ["--workers 0", 'Cannot parse --workers: must be an integer from 1 to 64 or auto, given "0"'],
    ["--secret-file f", "Cannot use a secret file: only workers that are joined share a secret (--join)"],
    ["--join a:1 --workers 2", "Cannot choose workers: either start them here or --join them elsewhere, given both"],
    ["--join a:1 --share-gpu", "Cannot choose workers: either start them here or --join them elsewhere, given both"],
    ["--join a:1,a:1", "Cannot join workers: a:1 is named twice"],
    ["--join a:1 --min-workers 2", "Cannot wait for 2 workers: 1 are named"],
    [
      "--min-workers 2",
      "Cannot use --min-workers: only joined workers come and go (--join)",
    ],
    ["--join a", 'Cannot parse address: must be host:port, given "a"'],
    [
      "--workers 3 --kv-tokens 640,128",
      "Cannot deal KV capacity: one for all or one for each of 3 workers is needed, given [640, 128]",
    ],
    [
      "--join dns:workers.example:8100 --kv-tokens 640,128",
      "Cannot deal KV capacity: one for all or one for each of 1 workers is needed, given [640, 128]",
    ],
    [
      "--join a:1 --kv-tokens 640,128",
      "Cannot deal KV capacity: one for all or one for each of 1 workers is needed, given [640, 128]",
    ],
  ] as const
) {
  Deno.test(`resolveWorkers() refuses ${args} in one line`, () => {
    assert.throws(() => fromArgs(args), { code: "invalid_request", message });
  });
}

Deno.test("resolveWorkers() refuses numbers out of bounds that no flag has checked", () => {
  assert.throws(() => resolveWorkers({ workers: 65 }), /workers: must be an integer from 1 to 64 or auto, given 65/);
  assert.throws(() => resolveWorkers({ kvTokens: [640, 63] }), /kvTokens: must be an integer from 64 .* given 63/);
  assert.throws(() => resolveWorkers({ join: [] }), /Cannot join workers: 1 to 64 are possible, given 0/);
});

Deno.test("kvTokensOfEach() deals one to all, or each its own", () => {
  assert.deepEqual(kvTokensOfEach(["auto"], 3), ["auto", "auto", "auto"]);
  assert.deepEqual(kvTokensOfEach([640, "auto"], 2), [640, "auto"]);
});
