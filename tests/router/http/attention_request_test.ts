/** What a request may say about attention, and what the service decides when it says nothing. */

import assert from "node:assert/strict";
import { NO_CORRECTION } from "../../support/generation_request.ts";
import { TestService } from "../../support/test_service.ts";

Deno.test("a request says what becomes of its sparse rows; what it leaves open, the service decides", async () => {
  const served = { mode: "refresh", every: 32, perToken: false } as const;
  const attention = { mode: "auto", budget: undefined, heads: "kv_head", correction: served } as const;
  using service = await TestService.open({ attention });
  const asked: readonly (readonly [Record<string, unknown>, Record<string, unknown>])[] = [
    [{}, served],
    [{ correct_every: 8 }, { ...served, every: 8 }],
    [{ correct_every: "auto" }, { ...served, every: "auto" }],
    [{ correct_every: 0 }, { mode: "off", every: "auto", perToken: false }],
    [{ correction: "off" }, { mode: "off", every: "auto", perToken: false }],
    // A stride goes with its mode.
    [{ correction: "lossless" }, { mode: "lossless", every: "auto", perToken: false }],
    [{ correction: "audit", correct_every: 5, audit_tokens: true }, { mode: "audit", every: 5, perToken: true }],
  ];
  for (const [fields] of asked) assert.equal((await service.chat({ attention: fields })).status, 200);
  const corrections = service.generator.requests.map((request) => request.attention.correction);
  assert.deepEqual(corrections, asked.map(([, correction]) => correction));
});

Deno.test("attention.budget auto reads as little as covers the attention, and is named so in the usage", async () => {
  using service = await TestService.open();
  const asked = async (attention: Readonly<Record<string, unknown>>) => {
    const response = await service.chat({ attention });
    assert.equal(response.status, 200);
    const { usage } = await response.json();
    return { usage: usage.attention, given: service.generator.requests.at(-1)?.attention.budget };
  };
  const { usage, given } = await asked({ mode: "sparse", budget: "auto", coverage: 0.9, max_budget: 512 });
  assert.deepEqual(given, { coverage: 0.9, atMost: 512 });
  assert.deepEqual([usage.budget, usage.coverage], ["auto", 0.9]);
  assert.deepEqual((await asked({ budget: "auto", coverage: null })).given, { coverage: 0.98, atMost: undefined });
  const fixed = await asked({ budget: 128, coverage: null, max_budget: null });
  assert.deepEqual([fixed.given, "coverage" in fixed.usage], [128, false]);
});

Deno.test("attention.budget auto of the service holds for requests that do not say, and bounds those that do", async () => {
  const asked = async (service: TestService, attention: Readonly<Record<string, unknown>>) => {
    assert.equal((await service.chat({ attention })).status, 200);
    return service.generator.requests.at(-1)?.attention.budget;
  };
  const budget = { coverage: 0.95, atMost: undefined };
  using adaptive = await TestService.open({
    attention: { mode: "auto", budget, heads: "kv_head", correction: NO_CORRECTION },
  });
  assert.deepEqual(await asked(adaptive, {}), budget);
  assert.deepEqual(await asked(adaptive, { coverage: 0.5 }), { coverage: 0.5, atMost: undefined });
  assert.deepEqual(await asked(adaptive, { budget: "auto", max_budget: 99 }), { coverage: 0.95, atMost: 99 });
  assert.equal(await asked(adaptive, { budget: 64 }), 64);
  using fixed = await TestService.open({
    attention: { mode: "auto", budget: 300, heads: "kv_head", correction: NO_CORRECTION },
  });
  assert.deepEqual(await asked(fixed, { budget: "auto" }), { coverage: 0.98, atMost: 300 });
});

Deno.test("attention that makes no sense is refused, naming field, bound and value", async () => {
  using service = await TestService.open();
  const cases = [
    [{ mode: "holy" }, "attention.mode", /"auto" or "dense" or "sparse", "holy" given/],
    [{ correction: "maybe" }, "attention.correction", /"refresh" or "audit" or "lossless" or "off"/],
    [{ correct_every: -1 }, "attention.correct_every", /correct_every/],
    [
      { correction: "audit", correct_every: 0 },
      "attention.correct_every",
      /audit needs a stride of at least 1, 0 given$/,
    ],
    [{ audit_tokens: true }, "attention.audit_tokens", /off corrections check none$/],
    [{ budget: "many" }, "attention.budget", /expected a number or "auto", "many" given$/],
    [{ budget: 64.5 }, "attention.budget", /expected an integer or "auto", 64.5 given$/],
    [{ budget: 15 }, "attention.budget", /expected at least 16, 15 given$/],
    [{ budget: 40_000 }, "attention.budget", /a budget of 40000 positions exceeds the model's 32768$/],
    [{ budget: "auto", max_budget: 40_000 }, "attention.max_budget", /a budget of 40000 positions exceeds/],
    [{ budget: "auto", max_budget: 8 }, "attention.max_budget", /expected at least 16, 8 given$/],
    [{ budget: "auto", coverage: 0 }, "attention.coverage", /expected more than 0, 0 given$/],
    [{ budget: "auto", coverage: 1.5 }, "attention.coverage", /expected at most 1, 1.5 given$/],
    [{ coverage: 0.9 }, "attention.coverage", /coverage needs the budget "auto"$/],
    [{ budget: 64, coverage: 0.9 }, "attention.coverage", /coverage needs the budget "auto"$/],
    [{ budget: 64, max_budget: 128 }, "attention.max_budget", /max_budget needs the budget "auto"$/],
  ] as const;
  for (const [attention, param, message] of cases) {
    const response = await service.chat({ attention });
    const { error } = await response.json();
    assert.deepEqual([response.status, error.param], [400, param], JSON.stringify(attention));
    assert.match(error.message, message);
  }
});
