/** What is written for container engines still fits the command line and the tree. */

import assert from "node:assert/strict";
import { parseAddress } from "../../router/host/address.ts";
import { OLDEST_DENO, parseFlags } from "../../router/command_line.ts";
import { command as serve } from "../../router/commands/serve.ts";
import { command as worker } from "../../router/commands/worker.ts";
import { configFromFlags, resolveConfig } from "../../router/config.ts";

function read(path: string): Promise<string> {
  return Deno.readTextFile(new URL(`../../${path}`, import.meta.url));
}

/** Lists of strings behind a key, as JSON but for a comma behind the last. */
function lists(text: string, key: RegExp): readonly string[][] {
  return [...text.matchAll(new RegExp(`^ *${key.source} (\\[[^\\]]*\\])`, "gm"))].map(([, list = ""]) =>
    JSON.parse(list.replace(/,\s*\]$/, "]"))
  );
}

Deno.test("the commands of compose.yaml are commands, and the router joins the workers that are there", async () => {
  const text = (await read("deploy/compose.yaml")).replaceAll(/\$\{\w+:-([^}]*)\}/g, "$1");
  const [listen = [], join = []] = lists(text, /command:/);
  assert.deepEqual([listen[0], join[0]], ["worker", "serve"]);
  const listening = parseFlags("worker", worker.flags, { args: listen.slice(1), env: {} });
  const config = resolveConfig(configFromFlags(parseFlags("serve", serve.flags, { args: join.slice(1), env: {} })));
  if (config.workers.kind !== "join" || config.workers.source.kind !== "static") assert.fail("no list of workers");
  assert.equal(config.workers.secretFile, listening.secretFile);
  for (const { hostname, port } of config.workers.source.addresses) {
    assert.match(text, new RegExp(`^  ${hostname}:$`, "m"), `${hostname} is a service`);
    assert.equal(port, parseAddress(listening.listen).port);
  }
});

Deno.test("the Dockerfile copies what is there, and its command serves", async () => {
  const text = await read("deploy/Dockerfile");
  const copied = [...text.matchAll(/^COPY --chown=tidepool (.*) \S+$/gm)].flatMap(([, paths = ""]) => paths.split(" "));
  assert.ok(copied.length >= 9);
  for (const path of copied) await Deno.stat(new URL(`../../${path}`, import.meta.url));
  const [[name, ...args] = []] = lists(text, /CMD/).filter(([first]) => first === "serve");
  assert.equal(name, "serve");
  assert.equal(configFromFlags(parseFlags("serve", serve.flags, { args, env: {} })).host, "0.0.0.0");
  const [, version = ""] = /^ARG DENO_VERSION=(\S+)$/m.exec(text) ?? [];
  assert.ok(version.localeCompare(OLDEST_DENO, undefined, { numeric: true }) >= 0, `Deno ${version}`);
});
