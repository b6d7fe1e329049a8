/**
 * The image without a container engine: the steps of the Dockerfile in a fresh Debian root, then a worker and a router as
 * containers would run them (another user, no capabilities, a read-only root file system) and one question.
 * `deno run -A tests/deploy/image.ts`; needs root, `debootstrap`, and the registries of Debian and npm. The stage that fetches Deno, which
 * is thrown away, runs with this machine's npm.
 */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { processTerminal } from "../../router/terminal.ts";
import { HostProcess } from "../hosts/host_process.ts";
import { DebianRoot, runProgram } from "./debian_root.ts";
import { assignments, type DockerStage, readDockerfile } from "./dockerfile.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** What the first stage leaves, and where it is here. */
const [DENO, FETCHED] = ["/deno/deno", "/fetched"];
const WORKER = "127.0.0.1:21390";
const PORT = 21391;
const ANSWER_MS = 120_000;

/** How a container of ours runs: private mounts, all but /tmp read-only, user 10001 without capabilities. */
const CONTAINER = `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount --rbind /proc "$0/proc" &&
  mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp" && exec chroot "$0" setpriv --reuid 10001 --regid 10001 \
  --clear-groups --no-new-privs --bounding-set=-all env -i "$@"`;

const terminal = processTerminal();

/** Runs the stage that fetches Deno. @param directory where a container would have its own */
async function fetchDeno({ instructions }: DockerStage, directory: string): Promise<void> {
  const env: Record<string, string> = {};
  for (const { word, text } of instructions) {
    if (word === "ARG") Object.assign(env, assignments(text));
    if (word !== "RUN") continue;
    const words = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    await runProgram("env", [...words, "sh", "-ec", text], directory);
  }
}

/** Runs the steps in one root: each stage begins where the one before ended, and only adds. @returns environment and entry point */
async function build(
  { path: root, registry }: DebianRoot,
): Promise<{ readonly env: Readonly<Record<string, string>>; readonly entry: readonly string[] }> {
  const env: Record<string, string> = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" };
  let [directory, entry] = ["/", [] as readonly string[]];
  const [fetching, ...stages] = readDockerfile(await Deno.readTextFile(`${ROOT}deploy/Dockerfile`));
  assert.ok(fetching !== undefined, "the first stage fetches Deno");
  await Deno.mkdir(root + FETCHED);
  await fetchDeno(fetching, root + FETCHED);
  terminal.line(`stage ${fetching.name}: built`);
  for (const { name, instructions } of stages) {
    for (const { word, text } of instructions) {
      if (word === "ENV" || word === "ARG") Object.assign(env, assignments(text));
      if (word === "WORKDIR") await Deno.mkdir(root + (directory = text), { recursive: true });
      if (word === "ENTRYPOINT") entry = JSON.parse(text);
      if (word === "COPY") await copy(root, directory, text);
      if (word === "RUN") {
        const set = Object.entries({ ...registry, ...env, COMMIT: "0123456789abcdef0123456789abcdef01234567" });
        const words = set.map(([key, value]) => `${key}=${value}`);
        await runProgram("chroot", [
          root,
          "env",
          "-i",
          "HOME=/root",
          ...words,
          "sh",
          "-c",
          `cd ${directory} && ${text}`,
        ]);
      }
    }
    terminal.line(`stage ${name}: built`);
  }
  return { env, entry };
}

async function copy(root: string, directory: string, text: string): Promise<void> {
  const words = text.split(" ").filter((word) => !word.startsWith("--"));
  const to = words.pop() ?? "";
  const target = to.startsWith("/") ? root + to : `${root}${directory}/${to === "./" ? "" : to}`;
  // What an earlier stage left is there already.
  if (text.includes("--from=program")) return;
  for (const from of words) {
    const source = from === DENO ? `${root}${FETCHED}/deno` : ROOT + from;
    await Deno.mkdir(target.replace(/\/[^/]*$/, ""), { recursive: true });
    await runProgram("cp", ["-rT", source, to === "./" ? `${target}${from}` : target]);
  }
}

async function answer(): Promise<string> {
  const end = performance.now() + ANSWER_MS;
  for (;;) {
    const ready = await fetch(`http://127.0.0.1:${PORT}/ready`).catch(() => undefined);
    await ready?.body?.cancel();
    if (ready?.ok) break;
    assert.ok(performance.now() < end, `it is not ready after ${ANSWER_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const body = JSON.stringify({ messages: [{ role: "user", content: "Hello" }], "max_tokens": 8 });
  const response = await fetch(`http://127.0.0.1:${PORT}/v1/chat/completions`, { method: "POST", body });
  return (await response.json()).choices[0].message.content;
}

async function main(): Promise<void> {
  const startedMs = performance.now();
  const seconds = () => `${((performance.now() - startedMs) / 1000).toFixed(0)} s`;
  await using root = await DebianRoot.make();
  terminal.line(`a fresh Debian root: made after ${seconds()}`);
  const { env, entry } = await build(root);
  terminal.line(`all stages: built after ${seconds()}`);
  await Deno.writeTextFile(`${root.path}/secret`, "the secret of the image\n");
  const words = Object.entries({ ...env, HOME: "/home/tidepool" }).map(([name, value]) => `${name}=${value}`);
  const container = (...args: string[]) =>
    new HostProcess(["unshare", "--mount", "sh", "-c", CONTAINER, root.path, ...words, ...entry, ...args]);
  const secret = ["--secret-file", "/secret"];
  await using worker = container("worker", "--listen", WORKER, ...secret);
  await using router = container(
    "serve",
    "--port",
    String(PORT),
    "--join",
    WORKER,
    ...secret,
    "--kv-tokens",
    "1024",
  );
  try {
    terminal.line(`answered "${await answer()}" after ${seconds()}`);
  } catch (error) {
    terminal.error([...worker.lines, ...router.lines].join("\n"));
    throw error;
  }
}

await main();
