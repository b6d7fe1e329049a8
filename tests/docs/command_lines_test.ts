/** Commands, tasks, flags and metrics that the pages name exist. */

import assert from "node:assert/strict";

import { ServiceMetrics } from "../../router/telemetry/metrics.ts";
import { MetricsRegistry } from "../../router/telemetry/metrics_registry.ts";
import { readPrograms, unknownFlags } from "./command_lines.ts";
import { readPages } from "./pages.ts";
import { NO_STATS } from "../support/no_stats.ts";

Deno.test("commands, tasks and flags that the pages name exist", async () => {
  const programs = await readPrograms();
  for (const page of await readPages()) assert.deepEqual(unknownFlags(page, programs), [], page.path);
});

Deno.test("unknownFlags() finds commands and flags that do not exist", async () => {
  const text = "`--port` `--none` `serve --nothing 3` `curl --data x`\n```sh\n" +
    "deno task start --port 1 --odd 2   # --comment\nnpx -y deno@2.9.6 run -A mod.ts eval --full --port 1\n" +
    "deno task nothing\ndeno task fuzz [--count 10] --odd\n```\n";
  assert.deepEqual(unknownFlags({ path: "docs/page.md", text }, await readPrograms()), [
    "task start --odd",
    "mod.ts eval --port",
    "task nothing",
    "task fuzz --odd",
    "--none",
    "--nothing",
  ]);
});

Deno.test("metrics that the pages name exist", async () => {
  const registry = new MetricsRegistry({});
  new ServiceMetrics(registry, {
    groups: () => [{ scheduler: NO_STATS, state: { kind: "loading", progress: 0 }, workersUp: [] }],
  });
  const known = new Set([...registry.text().matchAll(/^# HELP (\S+)/gm)].map(([, name]) => name));
  for (const { path, text } of await readPages()) {
    for (const [name] of text.matchAll(/\btidepool_[a-z_]+[a-z]\b/g)) assert.ok(known.has(name), `${path}: ${name}`);
  }
});
