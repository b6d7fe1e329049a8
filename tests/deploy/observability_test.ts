/** Dashboard, alerts and collector: they name metrics that exist, runbooks that are written, and parts that are defined. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { ServiceMetrics } from "../../router/telemetry/metrics.ts";
import { MetricsRegistry } from "../../router/telemetry/metrics_registry.ts";
import { VLLM_NAMES, vllmLabels } from "../../router/telemetry/vllm_names.ts";
import { headings } from "../docs/links.ts";
import { renderChart } from "../support/helm_chart.ts";
import { isInstalled } from "../support/is_installed.ts";
import { NO_STATS } from "../support/no_stats.ts";

const at = (path: string) => new URL(`../../${path}`, import.meta.url);
const read = (path: string) => Deno.readTextFile(at(path));

function registry(): MetricsRegistry {
  const registry = new MetricsRegistry({ "model_name": "m" }, undefined, { names: VLLM_NAMES, labels: vllmLabels });
  new ServiceMetrics(registry, {
    groups: () => [{ scheduler: NO_STATS, state: { kind: "loading", progress: 0 }, workersUp: [true] }],
  });
  return registry;
}

/** Every name that Prometheus would know. */
function knownNames(): ReadonlySet<string> {
  const heads = registry().text().matchAll(/^# TYPE (\S+) (\S+)$/gm);
  return new Set(
    [...heads].flatMap(([, name = "", kind]) =>
      kind === "histogram" ? ["_bucket", "_sum", "_count"].map((end) => name + end) : [name]
    ),
  );
}

Deno.test("metrics that alerts, dashboard and autoscalers name exist", async () => {
  const known = knownNames();
  const secret = { workerSecret: "0123456789abcdef" };
  const texts = [
    await read("deploy/prometheus/alerts.yaml"),
    await read("deploy/grafana/tidepool.json"),
    await renderChart({ secret, autoscaling: { enabled: true } }),
    await renderChart({ secret, keda: { enabled: true } }),
  ];
  for (const text of texts) {
    const names = text.match(/\btidepool_[a-z_]+/g) ?? [];
    assert.ok(names.length > 0);
    for (const name of names) assert.ok(known.has(name), name);
  }
});

Deno.test("figures that vLLM has too appear under its names, with its label, and are the same", () => {
  const lines = registry().text().split("\n");
  assert.ok(lines.includes('vllm:num_requests_waiting{model_name="m",engine="0"} 0'), lines.join("\n"));
  assert.ok(lines.includes("# TYPE vllm:time_to_first_token_seconds histogram"));
  const known = new Set(lines.map((line) => /^# TYPE (\S+)/.exec(line)?.[1]));
  for (const [own, alias] of VLLM_NAMES) assert.ok(known.has(own) && known.has(alias), own);
  assert.equal(lines.filter((line) => line.includes("vllm:") && line.includes("tidepool_")).length, 0);
});

Deno.test("every alert has a runbook", async () => {
  const { groups } = parse(await read("deploy/prometheus/alerts.yaml"));
  const written = headings(await read("docs/operating.md"));
  const rules: readonly { alert: string; annotations: { "runbook_url": string } }[] = groups[0].rules;
  assert.equal(rules.length, 9);
  for (const { alert, annotations } of rules) {
    assert.equal(annotations.runbook_url, `docs/operating.md#${alert.toLowerCase()}`);
    assert.ok(written.includes(alert.toLowerCase()), alert);
  }
});

const HAS_PROMTOOL = await isInstalled("promtool");

Deno.test({
  name: `Prometheus takes rules and configuration, and alerts fire when they should${
    HAS_PROMTOOL ? "" : " (left out: there is no promtool)"
  }`,
  ignore: !HAS_PROMTOOL,
  async fn() {
    const cwd = fileURLToPath(at("deploy/prometheus"));
    for (const args of [["check", "config", "prometheus.yaml"], ["test", "rules", "alerts_test.yaml"]]) {
      const { success, stdout, stderr } = await new Deno.Command("promtool", { args, cwd }).output();
      assert.ok(success, new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr));
    }
    const child = new Deno.Command("promtool", {
      args: ["check", "metrics"],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(registry().text()));
    await writer.close();
    const { code, stderr } = await child.output();
    // 3: it has advice about names. 1: it cannot read them.
    assert.ok(code === 0 || code === 3, new TextDecoder().decode(stderr));
  },
});

Deno.test("the pipelines of the collector are made of what it defines", async () => {
  const { service: { pipelines }, ...parts } = parse(await read("deploy/otel/collector.yaml"));
  for (const [name, pipeline] of Object.entries<Record<string, readonly string[]>>(pipelines)) {
    for (const [kind, used] of Object.entries(pipeline)) {
      for (const part of used) assert.ok(Object.hasOwn(parts[kind], part), `${name}: ${part}`);
    }
  }
});
