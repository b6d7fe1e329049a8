#!/usr/bin/env node
// `npx tidepool`: runs the program in this package with the Deno that it depends on, and ends as it does.
import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const here = fileURLToPath(new URL("..", import.meta.url));
const program = unpack(join(here, "program"));

/** Deno runs no TypeScript below a `node_modules`: the program is copied beside it, once for each version. */
function unpack(packed) {
  const { version } = require("../package.json");
  const commit = readFileSync(join(packed, "COMMIT"), "utf8").slice(0, 12);
  const cache = process.env.TIDEPOOL_HOME ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "tidepool");
  const target = join(cache, [version, commit].filter(Boolean).join("-"));
  if (existsSync(target)) return target;
  const unfinished = `${target}.${process.pid}`;
  mkdirSync(cache, { recursive: true });
  cpSync(packed, unfinished, { recursive: true });
  try {
    renameSync(unfinished, target);
  } catch (error) {
    rmSync(unfinished, { recursive: true });
    // Another process was quicker.
    if (!existsSync(target)) throw error;
  }
  return target;
}

// The binary itself: its launcher for Node passes no signals on.
const installed = join(
  dirname(require.resolve("deno/package.json")),
  process.platform === "win32" ? "deno.exe" : "deno",
);
const deno = existsSync(installed) ? installed : require("deno/install_api.cjs").runInstall();

const child = spawn(deno, [
  "run",
  "--quiet",
  "-A",
  join(program, "mod.ts"),
  ...process.argv.slice(2),
], { stdio: "inherit" });
// Ctrl-C reaches the whole terminal by itself; what a supervisor sends comes to this process alone.
for (const signal of ["SIGTERM", "SIGHUP"]) {
  process.on(signal, () => child.kill(signal));
}
process.on("SIGINT", () => {});
child.on("error", (error) => {
  process.stderr.write(`Cannot start Deno: ${error.message}\n`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  if (signal === null) process.exit(code ?? 1);
  process.kill(process.pid, signal);
});
