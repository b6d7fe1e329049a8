/** What a collector receives: one child process exports to a server of this test over OTLP. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { attribute, OtlpCollector } from "../../support/otlp_collector.ts";
import { until } from "../../support/until.ts";

/** Runs the emitter against a collector; everything it exported. */
async function collect(): Promise<OtlpCollector> {
  await using collector = new OtlpCollector();
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", fileURLToPath(new URL("../../support/telemetry_emitter.ts", import.meta.url))],
    env: { ...collector.env },
    stdin: "piped",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const ended = Promise.all([child.status, new Response(child.stderr).text()]);
  try {
    await until(() => collector.metrics.some(({ name }) => name === "tidepool.num_requests_running"), 60_000);
  } finally {
    await child.stdin.close();
  }
  const [{ code }, stderr] = await ended;
  assert.equal(code, 0, stderr);
  return collector;
}

Deno.test("telemetry exports request → queue, prefill, decode, step, and the GenAI histograms with their buckets", async (t) => {
  const { spans, metrics } = await collect();
  const named = (name: string) => spans.filter((span) => span.name === name);
  const [request] = named("chat tide-10m");
  assert.ok(request !== undefined, `spans: ${spans.map(({ name }) => name)}`);

  await t.step("traceRequest() makes a SERVER span below the client's, which knows its route", () => {
    assert.equal(request.kind, 2);
    assert.equal(request.parentSpanId, "b7ad6b7169203331");
    assert.equal(attribute(request, "http.route"), "/v1/chat/completions");
    assert.equal(attribute(request, "gen_ai.operation.name"), "chat");
    assert.equal(attribute(request, "gen_ai.response.id"), "chatcmpl-7");
    assert.equal(attribute(request, "gen_ai.usage.output_tokens"), 5);
    assert.equal(attribute(request, "gen_ai.usage.cache_read.input_tokens"), 64);
    const audit = ["checked", "agreed", "mean_kl", "first_divergence"];
    assert.deepEqual(audit.map((name) => attribute(request, `tidepool.audit.${name}`)), [3, 2, 0.25, 1]);
    assert.equal(attribute(request, "tidepool.correction.mode"), "audit");
  });

  await t.step("the phases and the prefill step are its children; a decode step is sampled away", () => {
    for (const name of ["queue", "prefill", "decode", "step"]) {
      assert.deepEqual(named(name).map((span) => [span.traceId, span.parentSpanId]), [[
        request.traceId,
        request.spanId,
      ]]);
    }
  });

  await t.step("the worker's step is a child of the router's", () => {
    const [[step], [onWorker]] = [named("step"), named("worker step")];
    assert.ok(step !== undefined && onWorker !== undefined);
    assert.deepEqual([onWorker.traceId, onWorker.parentSpanId], [request.traceId, step.spanId]);
    assert.equal(attribute(onWorker, "tidepool.step.exchange.states_bytes"), 2);
    assert.equal(attribute(onWorker, "tidepool.step.exchange.queries_ms"), 1);
  });

  await t.step("openTelemetryMirror exports histograms under the GenAI names", () => {
    const duration = metrics.find(({ name }) => name === "gen_ai.server.request.duration");
    const [point] = duration?.histogram?.dataPoints ?? [];
    assert.equal(duration?.unit, "s");
    assert.deepEqual(point?.explicitBounds.slice(0, 3), [0.01, 0.02, 0.04]);
    assert.equal(point?.explicitBounds.at(-1), 1310.72);
    assert.equal(point && attribute(point, "gen_ai.request.model"), "tide-10m");
    assert.equal(point && attribute(point, "gen_ai.operation.name"), "chat");
    for (const name of ["gen_ai.server.time_to_first_token", "gen_ai.server.time_per_output_token"]) {
      assert.ok(metrics.some((metric) => metric.name === name), name);
    }
  });

  await t.step("openTelemetryMirror reads gauges when it collects", () => {
    const value = (name: string) => {
      const metric = metrics.findLast((one) => one.name === name);
      const [point] = (metric?.gauge ?? metric?.sum)?.dataPoints ?? [];
      return Number(point?.asDouble ?? point?.asInt);
    };
    assert.equal(value("tidepool.num_requests_running"), 2);
    assert.equal(value("tidepool.generation_tokens"), 33);
    assert.equal(value("tidepool.audit_tokens_agreed"), 2);
  });
});
