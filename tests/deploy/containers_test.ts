/** What is written for container engines and systemd still fits the command line and the tree. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { describeJoin, parseJoin, parseNatsPlace } from "../../router/host/join_source.ts";
import { OLDEST_DENO } from "../../router/command_line.ts";
import { isInstalled } from "../support/is_installed.ts";
import { servedBy, workerFlags } from "./flags.ts";

const ROOT = new URL("../../", import.meta.url);

const read = (path: string) => Deno.readTextFile(new URL(path, ROOT));

interface Compose {
  readonly services: Readonly<Record<string, { readonly command: readonly string[]; readonly read_only?: boolean }>>;
}

async function compose(): Promise<Compose> {
  const text = (await read("deploy/compose.yaml")).replaceAll(/\$\{\w+:-([^}]*)\}/g, "$1");
  return parse(text, { merge: true });
}

Deno.test("the services of compose.yaml find each other with flags that exist", async () => {
  const { services } = await compose();
  const [serve, ...args] = services.router?.command ?? [];
  assert.equal(serve, "serve");
  const { workers } = servedBy(args);
  if (workers.kind !== "join" || workers.source.kind !== "nats") assert.fail("no bucket of workers");
  assert.ok(services[new URL(workers.source.server).hostname] !== undefined, "the server is a service");
  for (const name of ["worker-0", "worker-1"]) {
    const [command, ...rest] = services[name]?.command ?? [];
    assert.equal(command, "worker");
    const { announce = "", secretFile } = workerFlags(rest);
    assert.equal(describeJoin({ kind: "nats", ...parseNatsPlace(announce) }), describeJoin(workers.source));
    assert.equal(secretFile, workers.secretFile);
    assert.ok(services[name]?.read_only);
  }
});

Deno.test("the Dockerfile copies what is there and what its ignore file lets through, and its command serves", async () => {
  const text = await read("deploy/Dockerfile");
  const copied = [...text.matchAll(/^COPY (?!--)(.*) \S+$/gm)].flatMap(([, paths = ""]) => paths.split(" "));
  assert.ok(copied.length >= 10);
  const allowed: readonly string[] = (await read("deploy/Dockerfile.dockerignore")).match(/(?<=^!).*$/gm) ?? [];
  for (const path of copied) {
    await Deno.stat(new URL(`../../${path}`, import.meta.url));
    assert.ok(allowed.includes(path), `${path} is ignored`);
  }
  const [, command = "[]"] = /^CMD (\["serve".*)$/m.exec(text) ?? [];
  assert.equal(servedArgs(JSON.parse(command)).length, 2);
  const [, version = ""] = /^ARG DENO_VERSION=(\S+)$/m.exec(text) ?? [];
  assert.ok(version.localeCompare(OLDEST_DENO, undefined, { numeric: true }) >= 0, `Deno ${version}`);
  const users = text.match(/(?<=^USER ).*$/gm) ?? [];
  assert.equal(users.at(-1), "10001:10001", "it does not run as root");
  const dawn = /npm:webgpu@\S+/.exec(await read("deno.json"))?.[0].replace(/",?$/, "");
  assert.ok(text.includes(dawn ?? "no Dawn"), "the image holds the Dawn that is asked for");
});

function servedArgs([, ...args]: readonly string[]): readonly string[] {
  assert.equal(servedBy(args).host, "0.0.0.0");
  return args;
}

Deno.test("the units of systemd start commands with flags that exist", async () => {
  const commandOf = async (unit: string) => {
    const [, line = ""] =
      /^ExecStart=\/opt\/tidepool\/deploy\/tidepool\.sh (.*)$/m.exec(await read(`deploy/systemd/${unit}`)) ?? [];
    return line.replaceAll("%d", "/run/credentials").replaceAll("%i", "1").split(" ");
  };
  const [serve, ...args] = await commandOf("tidepool-router.service");
  assert.equal(serve, "serve");
  const { workers } = servedBy(args, { TIDEPOOL_SERVE_JOIN: "gpu-1:8100" });
  assert.deepEqual(workers.kind === "join" && [workers.source, workers.secretFile], [
    parseJoin(["gpu-1:8100"]),
    "/run/credentials/secret",
  ]);
  const [worker, ...rest] = await commandOf("tidepool-worker@.service");
  assert.equal(worker, "worker");
  assert.equal(workerFlags(rest).listen, "0.0.0.0:8101");
});

/** What systemd says of our units, which are told that the program is where this checkout is. */
async function verdictOn(change: (unit: string) => string): Promise<string> {
  const directory = await Deno.makeTempDir();
  try {
    const units = ["tidepool-router.service", "tidepool-worker@.service"];
    for (const unit of units) {
      const text = (await read(`deploy/systemd/${unit}`)).replaceAll("/opt/tidepool", fileURLToPath(ROOT).slice(0, -1));
      await Deno.writeTextFile(`${directory}/${unit}`, change(text));
    }
    const args = ["verify", "--man=no", ...units.map((unit) => `${directory}/${unit}`)];
    const { success, stderr } = await new Deno.Command("systemd-analyze", { args }).output();
    const ours = new TextDecoder().decode(stderr).split("\n").filter((line) => line.includes("tidepool-"));
    return success ? ours.join("\n") : [...ours, "systemd-analyze failed"].join("\n");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const HAS_SYSTEMD = await isInstalled("systemd-analyze");

Deno.test({
  name: `systemd takes the units${HAS_SYSTEMD ? "" : " (left out: there is no systemd-analyze)"}`,
  ignore: !HAS_SYSTEMD,
  async fn() {
    assert.equal(await verdictOn((unit) => unit), "");
    assert.match(
      await verdictOn((unit) => unit.replace("ProtectHome=", "ProtectHouse=")),
      /Unknown key 'ProtectHouse'/,
    );
  },
});
