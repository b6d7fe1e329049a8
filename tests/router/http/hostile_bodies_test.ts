/** Whatever a body says, it is answered or refused in the one shape, and the service goes on. */

import fc from "fast-check";
import assert from "node:assert/strict";

import { TestService } from "../../support/test_service.ts";

const HOSTILE: readonly string[] = [
  "",
  " ",
  "null",
  "[]",
  "7",
  '"text"',
  "{",
  '{"prompt":"a"',
  '{"prompt":"a"}x',
  '{"prompt":"a","prompt":7}',
  '{"prompt":"\\ud800"}',
  '{"prompt":"\\u0000"}',
  '{"messages":[{"role":"user","content":"\\udfff\\u0000"}]}',
  '{"__proto__":{"prompt":"a"}}',
  '{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"__proto__":null,"messages":[]}}',
  '{"prompt":"a","seed":1e999}',
  '{"prompt":"a","seed":-9007199254740991}',
  '{"prompt":"a","temperature":-0}',
  `{"prompt":"a","x":${"[".repeat(5000)}${"]".repeat(5000)}}`,
  `{"prompt":"a","x":${"[".repeat(1_000_000)}`,
  `{"messages":[${"1,".repeat(200_000)}1]}`,
  `{"prompt":[${"[],".repeat(200_000)}[]]}`,
  `{"prompt":"${"a".repeat(1_000_000)}"}`,
  `{"stop":[${'"",'.repeat(100_000)}""],"prompt":"a"}`,
];

/** Answers, or refuses in the one shape; never fails. */
async function checkHarmless(service: TestService, path: string, body: BodyInit): Promise<void> {
  const response = await service.app.request(path, { method: "POST", body });
  const text = await response.text();
  const shown = `${response.status} ${text.slice(0, 300)}`;
  assert.ok(response.status < 500, shown);
  if (response.status === 200) return;
  const { error } = JSON.parse(text);
  assert.deepEqual(Object.keys(error), ["message", "type", "param", "code"], shown);
  assert.match(error.message, /^Cannot .*[^.]$/s, shown);
}

const PATHS = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"];

Deno.test("a hostile body is refused in the one shape, and the service goes on", async () => {
  using service = await TestService.open();
  for (const body of [...HOSTILE, Uint8Array.of(0x7b, 0xff, 0x7d)]) {
    for (const path of PATHS) await checkHarmless(service, path, body);
  }
  assert.equal((await service.chat()).status, 200);
  assert.equal(service.generator.live, 0);
  assert.deepEqual(service.internalErrors, []);
});

Deno.test("no body, whatever it says, makes the service fail", async () => {
  using service = await TestService.open();
  const value = fc.oneof(
    { arbitrary: fc.jsonValue({ maxDepth: 3 }), weight: 3 },
    fc.constantFrom(...[-1, 0, 1, 2, 0.5, 16, 1e30, "", "a", true, null, [], {}, [1, 2], ["a"], [[1]]]),
    fc.array(fc.record({ role: fc.constantFrom("user", "assistant", "x"), content: fc.jsonValue({ maxDepth: 1 }) })),
  );
  const names = [
    "messages prompt content tokens model max_tokens temperature top_p top_k min_p stop seed n logit_bias logprobs",
    "top_logprobs stop_token_ids min_tokens ignore_eos stream stream_options attention echo best_of tools",
    "response_format chat_template_kwargs continue_final_message with_pieces add_special_tokens cache_salt",
  ].join(" ").split(" ");
  const fields = fc.dictionary(fc.constantFrom(...names), value, { maxKeys: 6 });
  const base = fc.constantFrom({}, { prompt: "a" }, { messages: [{ role: "user", content: "a" }] }, { tokens: [5] });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...PATHS), base, fields, async (path, some, others) => {
      await checkHarmless(service, path, JSON.stringify({ ...some, ...others }));
    }),
    { numRuns: 300 },
  );
  assert.equal(service.generator.live, 0);
  assert.deepEqual(service.internalErrors, []);
});
