/** The commands as processes: what they print, how they exit, and that they leave nothing behind. */

import assert from "node:assert/strict";
import { childrenOf, isRunning } from "../support/processes.ts";
import { Cli, runCli } from "../support/cli.ts";
import { TIDE, withFiles } from "../support/model_directory.ts";

/** A service that is up in a second: random weights of the smallest shape. */
const TINY = ["serve", "--port", "0", "--random", "tiny", "--kv-tokens", "4096"];

/** No Vulkan driver, and no way around it over OpenGL. */
const NO_DRIVER = {
  VK_DRIVER_FILES: "/nonexistent.json",
  VK_ICD_FILENAMES: "/nonexistent.json",
  DENO_WEBGPU_BACKEND: "vulkan",
};

Deno.test("the command line ends with 2 and one line for a flag it does not know, for every command", async () => {
  for (const command of ["serve", "worker", "chat", "eval", "calibrate", "bench", "doctor"]) {
    const { code, stdout, stderr } = await runCli([command, "--frobnicate"]);
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.equal(stderr, `Cannot run ${command}: unknown flag --frobnicate (see ${command} --help)\n`);
  }
});

Deno.test("--help names every command, and serve --help its flags with their defaults", async () => {
  const { code, stdout } = await runCli(["--help"]);
  assert.equal(code, 0);
  for (const command of ["serve", "worker", "chat", "eval", "calibrate", "bench", "doctor"]) {
    assert.match(stdout, new RegExp(`^  ${command} +\\S`, "m"));
  }
  const serve = await runCli(["serve", "--help"]);
  assert.match(serve.stdout, /--port N +port to listen on.*\(default: 8000\)/);
  assert.match(serve.stdout, /--kv-tokens N\|auto,… .*\n.*\(default: auto\)/);
  for (const command of ["eval", "calibrate"]) {
    const { stdout } = await runCli([command, "--help"]);
    assert.match(stdout, /--model DIR .*\(default: the embedded tide-10m\)/);
    assert.doesNotMatch(stdout, /default: \//, "no path of this machine");
  }
});

Deno.test("serve prints a curl line that works, drains on SIGINT, exits with 0 and leaves no worker", async () => {
  await using cli = new Cli([...TINY, "--log", "json"]);
  const [, url = "", body = ""] = await cli.printed(/curl -N (\S+) -H 'content-type: application\/json' -d '(.*)'\n/);
  const workers = await childrenOf(cli.pid);
  assert.equal(workers.length, 1);
  const metrics = await (await fetch(new URL("/metrics", url))).text();
  assert.match(metrics, /^tidepool_worker_up\{model_name="tiny",group="0",worker="0"\} 1$/m);
  // Still running when the signal comes.
  const request = { ...JSON.parse(body), "max_tokens": 40, "ignore_eos": true };
  const headers = { "content-type": "application/json" };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(request) });
  assert.equal(response.status, 200);
  // Twice, as a task runner passes it on.
  cli.kill("SIGINT");
  cli.kill("SIGINT");
  const events = (await response.text()).split("\n").filter((line) => line.startsWith("data: "));
  assert.equal(events.at(-1), "data: [DONE]");
  assert.match(events.at(-2) ?? "", /"finish_reason":"length"/);

  const { code, stdout } = await cli.end;
  assert.equal(code, 0);
  assert.ok(!workers.some(isRunning), "the worker is gone");
  const log = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  assert.deepEqual([log.status, log.outcome, log.completionTokens], [200, "length", 40]);
});

Deno.test("serve ends at once on the second signal, and leaves no worker", async () => {
  await using cli = new Cli(TINY);
  const [, origin = ""] = await cli.printed(/at (http:\S+)\/v1\n/);
  const workers = await childrenOf(cli.pid);
  const body = JSON.stringify({
    messages: [{ role: "user", content: "Hi" }],
    stream: true,
    "max_tokens": 4000,
    "ignore_eos": true,
  });
  const response = await fetch(`${origin}/v1/chat/completions`, { method: "POST", body });
  cli.kill("SIGTERM");
  await cli.printed(/Finishing what runs/, "stderr");
  // Sooner it would pass for the same signal, passed on by a task runner.
  await new Promise((resolve) => setTimeout(resolve, 1100));
  cli.kill("SIGINT");
  assert.match(await response.text(), /"code":"(draining|worker_lost|group_unavailable)"/);
  assert.equal((await cli.end).code, 130);
  assert.ok(!workers.some(isRunning), "the worker is gone");
});

Deno.test("serve exits and says why when the model, the flags or the address are at fault", async () => {
  const missing = await runCli(["serve", "--port", "0", "--model", "/nonexistent"]);
  assert.equal(missing.code, 2);
  assert.match(missing.stderr, /^Cannot find model \/nonexistent: .*\n$/);

  const names = ["config.json", "tokenizer.json", "tokenizer_config.json"];
  const text = Object.fromEntries(
    await Promise.all(
      names.map(async (name) => [name, await Deno.readFile(`${TIDE}/${name}`)] as const),
    ),
  );
  await withFiles({ ...text, "model.safetensors": "no tensors" }, async (directory) => {
    const corrupt = await runCli(["serve", "--port", "0", "--model", directory]);
    assert.equal(corrupt.code, 1);
    assert.match(corrupt.stderr, /model\.safetensors/);
  });

  const both = await runCli([...TINY, "--model", TIDE]);
  assert.equal(both.code, 2);
  assert.match(both.stderr, /^Cannot choose a model: .*\n$/);

  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const taken = await runCli(["serve", "--random", "tiny", "--port", String(listener.addr.port)]);
  listener.close();
  assert.equal(taken.code, 1);
  assert.match(taken.stderr, /^Cannot listen on 127\.0\.0\.1:\d+: something else listens there already\n$/);
});

Deno.test("serve and doctor exit with 1 and name the remedy when there is no adapter", async () => {
  for (const args of [["doctor"], TINY]) {
    const { code, stderr } = await runCli(args, { env: NO_DRIVER });
    assert.equal(code, 1);
    assert.match(stderr, /no adapter was found .*apt-get install libvulkan1 mesa-vulkan-drivers/);
  }
});

Deno.test("doctor --json reports the adapter, and a kernel that computed what it should", async () => {
  const { code, stdout } = await runCli(["doctor", "--json"]);
  assert.equal(code, 0);
  const { gpu, kernelCorrect, readBackMs } = JSON.parse(stdout);
  assert.ok(gpu.adapter.length > 0 && gpu.maxBindingBytes > 0);
  assert.ok(kernelCorrect);
  assert.ok(readBackMs > 0 && readBackMs < 5000);
});
