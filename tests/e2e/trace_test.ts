/** One trace from a client's request through the router's steps to those of the worker, which is a process of its own. */

import assert from "node:assert/strict";
import { Cli } from "../support/cli.ts";
import { OtlpCollector, type Span } from "../support/otlp_collector.ts";
import { until } from "../support/until.ts";

const CLIENT = { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331" };

Deno.test("a request, its steps on the router and those on the worker are one trace", async () => {
  await using collector = new OtlpCollector();
  await using serve = new Cli(["serve", "--port", "0", "--random", "tiny", "--kv-tokens", "1024", "--gpu", "deno"], {
    env: collector.env,
  });
  const [, origin = ""] = await serve.printed(/ at (http:\/\/127\.0\.0\.1:\d+)\/v1/);
  const response = await fetch(`${origin}/v1/completions`, {
    method: "POST",
    headers: { traceparent: `00-${CLIENT.traceId}-${CLIENT.spanId}-01` },
    body: JSON.stringify({ prompt: [5, 6, 7], "max_tokens": 2 }),
  });
  assert.equal(response.status, 200, await response.text());
  const named = (name: string): Span | undefined =>
    collector.spans.find((span) => span.traceId === CLIENT.traceId && span.name === name);
  const names = ["text_completion tiny", "step", "worker step"] as const;
  await until(() => names.every((name) => named(name) !== undefined), 30_000);
  const [request, step, onWorker] = names.map(named);
  assert.deepEqual([request?.parentSpanId, step?.parentSpanId, onWorker?.parentSpanId], [
    CLIENT.spanId,
    request?.spanId,
    step?.spanId,
  ]);
  serve.kill("SIGTERM");
  assert.equal((await serve.end).code, 0);
});
