/** The application around the completions: models, health, tokens, ids, and one shape for every error. */

import assert from "node:assert/strict";

import { CONTEXT_TOKENS, MODEL_INFO, TestService, tokensOf } from "../../support/test_service.ts";

Deno.test("GET /v1/models lists the model, and finds it with slashes plain or encoded", async () => {
  using service = await TestService.open();
  const list = await (await service.app.request("/v1/models")).json();
  assert.equal(list.object, "list");
  const [model] = list.data;
  assert.equal(model.id, "org/tide");
  assert.equal(model.max_model_len, CONTEXT_TOKENS);
  assert.equal(model.meta.n_ctx_train, 32_768);
  for (const path of ["/v1/models/org/tide", "/v1/models/org%2Ftide"]) {
    assert.deepEqual(await (await service.app.request(path)).json(), model, path);
  }
  const missing = await service.app.request("/v1/models/org/other");
  assert.equal(missing.status, 404);
  assert.equal((await missing.json()).error.code, "model_not_found");
});

Deno.test("unknown paths and wrong methods get the envelope", async () => {
  using service = await TestService.open();
  const missing = await service.app.request("/v1/nothing");
  assert.equal(missing.status, 404);
  assert.equal((await missing.json()).error.code, "not_found");
  for (
    const [method, path, allow] of [["GET", "/v1/chat/completions", "POST"], ["DELETE", "/v1/models", "GET, HEAD"]]
  ) {
    const wrong = await service.app.request(path ?? "", { method: method ?? "" });
    assert.equal(wrong.status, 405);
    assert.equal(wrong.headers.get("allow"), allow);
    assert.equal((await wrong.json()).error.code, "method_not_allowed");
  }
  assert.equal((await service.app.request("/health", { method: "HEAD" })).status, 200);
});

Deno.test("a body over the cap is 413, declared or not, and holds no memory afterwards", async () => {
  using service = await TestService.open({ limits: { bodyBytes: 1000 } });
  const declared = await service.chat({ user: "x".repeat(2000) });
  assert.equal(declared.status, 413);
  assert.deepEqual((await declared.json()).error.code, "request_too_large");
  let sent = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull(controller) {
      sent += 400;
      controller.enqueue(new Uint8Array(400));
    },
  });
  const streamed = await service.app.request("/v1/completions", { method: "POST", body: endless });
  assert.equal(streamed.status, 413);
  assert.ok(sent <= 2400, `${sent} bytes were read`);
  assert.equal((await service.chat()).status, 200);
});

Deno.test("a body that never ends is given up, and one that breaks off is a client that left", async () => {
  using service = await TestService.open({ limits: { bodyMs: 30 } });
  const silent = new ReadableStream<Uint8Array>({ pull: () => new Promise(() => {}) });
  const late = await service.app.request("/v1/completions", { method: "POST", body: silent });
  assert.equal(late.status, 408);
  const broken = new ReadableStream<Uint8Array>({ pull: (controller) => controller.error(new Error("reset")) });
  const torn = await service.app.request("/v1/completions", { method: "POST", body: broken });
  assert.equal(torn.status, 499);
  assert.deepEqual(service.observer.outcomes, [
    { kind: "failed", code: "request_timeout", status: 408 },
    { kind: "disconnected", phase: "reading" },
  ]);
});

Deno.test("/health lives while /ready says why not", async () => {
  using service = await TestService.open();
  const ready = await service.app.request("/ready");
  assert.equal(ready.status, 200);
  assert.deepEqual(await ready.json(), {
    status: "ready",
    group: "ready",
    epoch: 3,
    model: "org/tide",
    workers: [{ adapter: "none", capacity_tokens: CONTEXT_TOKENS }],
    capacity_tokens: CONTEXT_TOKENS,
    max_context_tokens: CONTEXT_TOKENS,
    members: { origin: "--workers", found: [{ worker: 0, state: "present" }] },
    draining: false,
    queue: { running: 1, waiting: 2 },
    free_tokens: (50 + 4) * 64,
    groups: [{
      group: 0,
      state: "ready",
      epoch: 3,
      model: "org/tide",
      workers: [{ adapter: "none", capacity_tokens: CONTEXT_TOKENS }],
      capacity_tokens: CONTEXT_TOKENS,
      max_context_tokens: CONTEXT_TOKENS,
      queue: { running: 1, waiting: 2 },
      free_tokens: (50 + 4) * 64,
    }],
  });
  const cases = [
    [{ kind: "loading", progress: 0.5 }, "loading"],
    [{ kind: "loading", progress: 0, reason: "another secret" }, "loading"],
    [{ kind: "broken", reason: "worker 0 died" }, "group_unavailable"],
  ] as const;
  for (const [group, code] of cases) {
    service.enter(group);
    const unready = await service.app.request("/ready");
    assert.equal(unready.status, 503);
    assert.ok(Number(unready.headers.get("retry-after")) > 0);
    const body = await unready.json();
    assert.equal(body.error.code, code);
    assert.equal(body.group, group.kind);
    assert.equal(body.reason, group.kind === "loading" && "reason" in group ? "another secret" : undefined);
    assert.equal((await service.app.request("/health")).status, 200);
  }
  service.enter({ kind: "ready", epoch: 3, model: MODEL_INFO });
  service.state = { ...service.state, draining: true };
  const draining = await (await service.app.request("/ready")).json();
  assert.deepEqual([draining.error.code, draining.group], ["draining", "ready"]);
});

Deno.test("/ready is ready while one of several groups is, and says what each has", async () => {
  using service = await TestService.open();
  const ready = { kind: "ready", epoch: 5, model: { ...MODEL_INFO, slices: [48], kvPages: 48 } } as const;
  service.enter({ kind: "loading", progress: 0.5, model: MODEL_INFO }, ready, { kind: "broken", reason: "no GPU" });
  const response = await service.app.request("/ready");
  assert.equal(response.status, 200);
  const { group, epoch, workers, groups, members, ...whole } = await response.json();
  assert.deepEqual([group, epoch, workers.length], ["ready", 5, 1]);
  const queue = { running: 3, waiting: 6 };
  assert.deepEqual([whole.capacity_tokens, whole.max_context_tokens, whole.queue], [3072, 3072, queue]);
  assert.deepEqual(groups.map(({ state }: { state: string }) => state), ["loading", "ready", "broken"]);
  assert.deepEqual([groups[0].progress, groups[2].reason], [0.5, "no GPU"]);
  assert.deepEqual(members.found[1], { group: 1, worker: 0, state: "present" });
  service.enter(ready, { ...ready, model: MODEL_INFO });
  const both = await (await service.app.request("/ready")).json();
  assert.deepEqual([both.capacity_tokens, both.max_context_tokens, both.workers.length], [3072 + 4096, 4096, 2]);
  const [listed] = (await (await service.app.request("/v1/models")).json()).data;
  const contexts = listed.groups.map((one: { max_model_len: number }) => one.max_model_len);
  assert.deepEqual([listed.max_model_len, contexts], [4096, [3072, 4096]]);
});

Deno.test("/ready says how long a context each worker of a group copies whole, where it copies", async () => {
  using service = await TestService.open();
  const model = { ...MODEL_INFO, slices: [48, 48], kvPages: 96, copyPages: 8 };
  service.enter({ kind: "ready", epoch: 5, model }, { kind: "ready", epoch: 5, model: { ...model, copyPages: 0 } });
  const { groups } = await (await service.app.request("/ready")).json();
  assert.deepEqual([groups[0].copied_context_tokens, groups[1].copied_context_tokens], [16 * 64, undefined]);
});

Deno.test("/ready and /v1/models say what the group can do now: its workers, and the longest context", async () => {
  using service = await TestService.open();
  const told = async (model: Partial<typeof MODEL_INFO>, epoch: number) => {
    service.model = { ...MODEL_INFO, ...model };
    service.enter({ kind: "ready", epoch, model: service.model });
    const ready = await (await service.app.request("/ready")).json();
    const [listed] = (await (await service.app.request("/v1/models")).json()).data;
    assert.equal(listed.max_model_len, ready.max_context_tokens);
    return [ready.epoch, ready.workers.length, ready.capacity_tokens, ready.max_context_tokens];
  };
  const three = { slices: [64, 32, 32], adapters: ["a", "b", "c"], kvPages: 128 };
  assert.deepEqual(await told(three, 4), [4, 3, 8192, 8192]);
  assert.deepEqual(await told({ ...three, maxPositions: 5000 }, 5), [5, 3, 8192, 5000]);
  const left = { slices: [64, 32], adapters: ["a", "b"], kvPages: 96 };
  assert.deepEqual(await told(left, 6), [6, 2, 6144, 6144]);
  const prompt = Array.from({ length: 6144 }, () => 5);
  const refused = await service.post("/v1/completions", { prompt, max_tokens: 1 });
  assert.equal(refused.status, 400);
  const { error } = await refused.json();
  assert.equal(error.code, "context_length_exceeded");
  assert.match(error.message, /6144 .* 6144/, "both numbers");
});

Deno.test("requests while broken, loading or draining are 503, and the last closes its connection", async () => {
  using service = await TestService.open();
  service.model = undefined;
  service.enter({ kind: "broken", reason: "worker 0 died" });
  assert.equal((await (await service.chat()).json()).error.code, "group_unavailable");
  service.enter({ kind: "loading", progress: 0 });
  const loading = await service.chat();
  assert.equal(loading.status, 503);
  assert.equal((await loading.json()).error.code, "loading");
  assert.deepEqual((await (await service.app.request("/v1/models")).json()).data, []);
  service.model = MODEL_INFO;
  service.state = { ...service.state, draining: true };
  const draining = await service.post("/tokenize", { prompt: "a" });
  assert.equal(draining.status, 503);
  assert.equal(draining.headers.get("connection"), "close");
});

Deno.test("POST /tokenize and /detokenize speak vLLM and llama.cpp", async () => {
  using service = await TestService.open();
  const text = "Naïve 🐙";
  const tokens = tokensOf(service.tokenizer, text);
  const ask = async (path: string, body: unknown) => await (await service.post(path, body)).json();
  assert.deepEqual(await ask("/tokenize", { prompt: text }), {
    count: 1 + tokens.length,
    max_model_len: CONTEXT_TOKENS,
    tokens: [0, ...tokens],
  });
  assert.deepEqual((await ask("/tokenize", { prompt: text, add_special_tokens: false })).tokens, tokens);
  const strings = await ask("/tokenize", { prompt: "a b", return_token_strs: true });
  assert.equal(strings.token_strs.join(""), "<|bos|>a b");
  const chat = await ask("/tokenize", { messages: [{ role: "user", content: "Hi" }] });
  assert.equal(service.tokenizer.decode(chat.tokens), "<|bos|><|user|>\nHi<|end|>\n<|assistant|>\n");
  assert.deepEqual(await ask("/tokenize", { content: text }), { tokens });
  assert.deepEqual(await ask("/tokenize", { content: text, add_special: true }), { tokens: [0, ...tokens] });
  const pieces = await ask("/tokenize", { content: text, with_pieces: true });
  const bytes = pieces.tokens.flatMap(({ piece }: { piece: string | number[] }) =>
    typeof piece === "string" ? [...new TextEncoder().encode(piece)] : piece
  );
  assert.equal(new TextDecoder().decode(Uint8Array.from(bytes)), text);
  assert.deepEqual(await ask("/detokenize", { tokens }), { prompt: text, content: text });
  assert.match((await ask("/tokenize", { prompt: "a", content: "b" })).error.message, /2 given/);
  assert.match((await ask("/detokenize", { tokens: [9999] })).error.message, /outside the vocabulary/);
});

Deno.test("/openapi.json describes every route, twice the same", async (t) => {
  using service = await TestService.open();
  const document = await (await service.app.request("/openapi.json")).json();
  assert.deepEqual(await (await service.app.request("/openapi.json")).json(), document);
  await t.assertSnapshot(document);
});

Deno.test("others mount routes of their own", async () => {
  using service = await TestService.open({ mount: (app) => void app.get("/metrics", (c) => c.text("up 1\n")) });
  assert.equal(await (await service.app.request("/metrics")).text(), "up 1\n");
});
