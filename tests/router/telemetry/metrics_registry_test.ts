/** What scrapers read, and what the mirror hears. */

import assert from "node:assert/strict";
import { MetricsRegistry } from "../../../router/telemetry/metrics_registry.ts";

Deno.test("MetricsRegistry.text() writes counters and gauges with HELP and TYPE", () => {
  const registry = new MetricsRegistry({ model_name: "m" });
  const requests = registry.counter("requests_total", "Requests\nby reason \\ all");
  registry.counter("idle_total", "Never counted");
  let now = 0;
  registry.observed("gauge", "running", { help: "Now", read: () => [{ value: now, labels: { worker: "0" } }] });
  registry.observed("gauge", "unknown", { help: "Not known", read: () => [] });
  requests.add(1, { reason: "stop" });
  requests.add(2, { reason: "stop" });
  requests.add(1, { reason: 'a"b\\c\nd' });
  now = 2;
  assert.deepEqual(registry.text().split("\n"), [
    "# HELP requests_total Requests\\nby reason \\\\ all",
    "# TYPE requests_total counter",
    'requests_total{model_name="m",reason="stop"} 3',
    'requests_total{model_name="m",reason="a\\"b\\\\c\\nd"} 1',
    "# HELP idle_total Never counted",
    "# TYPE idle_total counter",
    'idle_total{model_name="m"} 0',
    "# HELP running Now",
    "# TYPE running gauge",
    'running{model_name="m",worker="0"} 2',
    "# HELP unknown Not known",
    "# TYPE unknown gauge",
    "",
  ]);
});

Deno.test("MetricsRegistry.text() cumulates buckets; a value on a bound belongs to it", () => {
  const registry = new MetricsRegistry({});
  const seconds = registry.histogram("wait_seconds", "Wait", [0.5, 1, 10]);
  for (const value of [0.1, 0.5, 1, 7, 100]) seconds.observe(value);
  assert.deepEqual(registry.text().split("\n").slice(2, -1), [
    'wait_seconds_bucket{le="0.5"} 2',
    'wait_seconds_bucket{le="1"} 3',
    'wait_seconds_bucket{le="10"} 4',
    'wait_seconds_bucket{le="+Inf"} 5',
    "wait_seconds_sum 108.6",
    "wait_seconds_count 5",
  ]);
});

Deno.test("MetricsRegistry passes every value to its mirror with all labels", () => {
  const heard: unknown[] = [];
  const registry = new MetricsRegistry({ model_name: "m" }, {
    record: ({ name, kind, buckets }) => (value, labels) => heard.push([name, kind, buckets, value, labels]),
    observe: ({ name, kind }, read) => heard.push([name, kind, read()]),
  });
  const counter = registry.counter("a_total", "A");
  counter.add(2, { x: "1" });
  counter.add(0);
  registry.histogram("b_seconds", "B", [1]).observe(3);
  registry.observed("gauge", "c", { help: "C", read: () => [{ value: 0 }] });
  assert.deepEqual(heard, [
    ["a_total", "counter", [], 2, { model_name: "m", x: "1" }],
    ["b_seconds", "histogram", [1], 3, { model_name: "m" }],
    ["c", "gauge", [{ value: 0, labels: { model_name: "m" } }]],
  ]);
});

Deno.test("MetricsRegistry refuses two instruments of one name", () => {
  const registry = new MetricsRegistry({});
  registry.counter("a_total", "A");
  assert.throws(() => registry.histogram("a_total", "B", []), /a_total/);
});
