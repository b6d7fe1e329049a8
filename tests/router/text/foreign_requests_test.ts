/** Legal but unusual requests of the chat, Responses and Messages APIs: what the template receives, and whose fields are blamed. */

import assert from "node:assert/strict";

import { ChatTemplate } from "../../../engine/text/chat_template.ts";
import { RequestError } from "../../../router/errors.ts";
import { countTokens, prepareMessages } from "../../../router/text/messages_request.ts";
import { loadModelText, type ModelText } from "../../../router/text/model_text.ts";
import { prepareChat, type PrepareContext, type PreparedGeneration } from "../../../router/text/prepare.ts";
import { prepareResponses } from "../../../router/text/responses_request.ts";
import { NO_CORRECTION } from "../../support/generation_request.ts";
import { MODEL_DIRECTORY } from "../../support/test_service.ts";

const CONTEXT: PrepareContext = {
  modelId: "m",
  contextTokens: 4096,
  maxPositions: 32_768,
  vocabSize: 8192,
  calibrated: true,
  attention: { mode: "auto", budget: undefined, heads: "kv_head", correction: NO_CORRECTION },
};

/** Shows everything that it receives; knows tools and reasoning. */
const TEMPLATE = `{% for message in messages %}[{{ message.role }}]
{%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}
{{- message.content }}{% for call in message.tool_calls or [] %}<tool_call>{{ call.function.name }}{% endfor %}
{%- endfor %}{% if reasoning_effort %}({{ reasoning_effort }}){% endif %}
{%- if enable_thinking is defined and not enable_thinking %}(off){% endif %}
{%- if add_generation_prompt %}[answer]{% endif %}{# tools #}`;

const text: ModelText = {
  ...await loadModelText({ directory: MODEL_DIRECTORY }),
  template: new ChatTemplate(TEMPLATE, {}),
};

const APIS = { chat: prepareChat, responses: prepareResponses, messages: prepareMessages };

type Body = Record<string, unknown>;

function prepared(api: keyof typeof APIS, body: Body): PreparedGeneration {
  return APIS[api](text, { ...body, ...(api === "messages" && { model: "m", max_tokens: 8 }), ...body }, CONTEXT);
}

function promptOf(api: keyof typeof APIS, body: Body): string {
  return text.tokenizer.decode(prepared(api, body).prompts[0]?.tokens ?? []);
}

/** What a refused request is told. */
function refusalOf(
  api: keyof typeof APIS,
  body: Body,
): { readonly param: string | undefined; readonly message: string } {
  try {
    prepared(api, body);
  } catch (error) {
    assert.ok(error instanceof RequestError, String(error));
    return error;
  }
  return assert.fail("it was not refused");
}

const HI = { role: "user", content: "Hi" };
const PARAMETERS = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const [A, B] = ["a", "b"].map((name) => ({ type: "function", function: { name, parameters: PARAMETERS } }));
const CALL = { id: "1", type: "function", function: { name: "a", arguments: "{}" } };

Deno.test("a conversation's odd messages reach the template", async (t) => {
  const cases: Record<string, [keyof typeof APIS, Body, string]> = {
    "a refusal": [
      "chat",
      { messages: [HI, { role: "assistant", content: null, refusal: "No." }, HI] },
      "[assistant]No.[",
    ],
    "a part that is a refusal": [
      "chat",
      { messages: [HI, { role: "assistant", content: [{ type: "refusal", refusal: "No." }] }, HI] },
      "[assistant]No.[",
    ],
    "reasoning alone": [
      "chat",
      { messages: [HI, { role: "assistant", content: null, reasoning_content: "Hm." }, HI] },
      "[assistant]<think>Hm.</think>[",
    ],
    "a result without content": [
      "chat",
      { messages: [HI, { role: "assistant", tool_calls: [CALL] }, { role: "tool", tool_call_id: "1", content: [] }] },
      "<tool_call>a[tool][",
    ],
    "a refused response": [
      "responses",
      { input: [HI, { role: "assistant", content: [{ type: "refusal", refusal: "No." }] }, HI] },
      "[assistant]No.[",
    ],
    "reasoning items, before the call that they led to": [
      "responses",
      {
        input: [
          HI,
          { type: "reasoning", id: "rs_1", summary: [], content: [{ type: "reasoning_text", text: "Hm." }] },
          { type: "function_call", call_id: "1", name: "a", arguments: "{}", status: "completed" },
          { type: "function_call_output", call_id: "1", output: "Rain" },
        ],
      },
      "[assistant]<think>Hm.</think><tool_call>a[tool]Rain[",
    ],
    "items with empty fields": [
      "responses",
      {
        input: [{ type: "message", id: null, status: null, role: "user", content: "Hi", call_id: null, output: null }],
      },
      "[user]Hi[",
    ],
    "an answer that was begun": [
      "messages",
      { messages: [HI, { role: "assistant", content: "The answer" }] },
      "[user]Hi[assistant]The answer",
    ],
    "a message without blocks": [
      "messages",
      { messages: [HI, { role: "assistant", content: [] }, HI] },
      "[assistant][user]",
    ],
  };
  for (const [name, [api, body, expected]] of Object.entries(cases)) {
    await t.step(name, () => {
      const prompt = promptOf(api, body);
      assert.ok(prompt.includes(expected), prompt);
    });
  }
  assert.ok(!promptOf("messages", { messages: [HI, { role: "assistant", content: "So" }] }).includes("[answer]"));
});

Deno.test("efforts of reasoning reach the template, over every API; none switches it off", () => {
  assert.match(promptOf("chat", { messages: [HI], reasoning_effort: "low" }), /\(low\)\[answer\]/);
  assert.match(promptOf("chat", { messages: [HI], reasoning_effort: "none" }), /\(none\)\(off\)/);
  const kwargs = { "enable_thinking": true };
  assert.doesNotMatch(
    promptOf("chat", { messages: [HI], reasoning_effort: "none", chat_template_kwargs: kwargs }),
    /off/,
  );
  assert.match(promptOf("responses", { input: "Hi", reasoning: { effort: "high" } }), /\(high\)/);
  assert.match(promptOf("messages", { messages: [HI], output_config: { effort: "max" } }), /\(max\)/);
});

Deno.test("tool_choice keeps calls to the tools that are allowed", () => {
  const allowed = (mode: string, name: string) => ({
    type: "allowed_tools",
    allowed_tools: { mode, tools: [{ type: "function", function: { name } }] },
  });
  const tools = [A, B];
  const required = prepared("chat", { messages: [HI], tools, tool_choice: allowed("required", "b") });
  assert.deepEqual(required.form.tools?.names, ["b"]);
  const { grammar } = required;
  assert.ok(grammar?.kind === "list" && grammar.tags.length === 1 && grammar.tags[0]?.begin.includes('"b"'));
  const voluntary = prepared("chat", { messages: [HI], tools, tool_choice: allowed("auto", "b") }).grammar;
  assert.ok(voluntary?.kind === "triggered" && !voluntary.required && voluntary.tags.length === 1);
  assert.equal(prepared("chat", { messages: [HI], tools: [B], tool_choice: allowed("auto", "b") }).grammar, undefined);
  const responses = prepared("responses", {
    input: "Hi",
    tools: [{ type: "function", name: "a" }, { type: "function", name: "b" }],
    tool_choice: { type: "allowed_tools", mode: "required", tools: [{ type: "function", name: "b" }] },
  });
  assert.deepEqual(responses.form.tools?.names, ["b"]);
});

Deno.test("parallel_tool_calls: false allows one voluntary call, with any arguments", () => {
  const odd = { type: "function", function: { name: "odd", parameters: { not: {} } } };
  const { grammar } = prepared("chat", { messages: [HI], tools: [A, odd], parallel_tool_calls: false });
  assert.ok(grammar?.kind === "triggered" && grammar.single && !grammar.required);
  assert.deepEqual(grammar.tags.map(({ content }) => content), [
    { kind: "json", schema: { type: "object" } },
    { kind: "json", schema: { type: "object" } },
  ]);
});

Deno.test("Messages ask for a form of the answer, and for strict tools", () => {
  const format = { type: "json_schema", schema: { type: "object", properties: { a: { type: "boolean" } } } };
  for (const asked of [{ output_config: { format } }, { output_format: format }]) {
    assert.equal(prepared("messages", { messages: [HI], ...asked }).grammar?.kind, "json");
  }
  const strict = { name: "a", "input_schema": PARAMETERS, strict: true };
  assert.equal(prepared("messages", { messages: [HI], tools: [strict] }).grammar?.kind, "triggered");
  assert.equal(prepared("messages", { messages: [HI], stop_sequences: Array(20).fill("x") }).stopStrings.length, 20);
});

Deno.test("responses repeat what they were asked", () => {
  const { echoed } = prepared("responses", { input: "Hi", reasoning: { effort: "low" }, text: { verbosity: "low" } });
  assert.deepEqual(echoed?.reasoning, { effort: "low", summary: null });
  assert.deepEqual(echoed?.text, { verbosity: "low", format: { type: "text" } });
});

Deno.test("a refusal blames the field that the client wrote", async (t) => {
  const schema = { type: "object", not: {} };
  const result = { type: "tool_result", "tool_use_id": "1", content: "x" };
  const cases: Record<string, [keyof typeof APIS, Body, string]> = {
    "two tools of one name": ["chat", { messages: [HI], tools: [A, A] }, "tools[1].function.name"],
    "a tool that is allowed but not offered": [
      "chat",
      {
        messages: [HI],
        tools: [A],
        tool_choice: { type: "allowed_tools", allowed_tools: { mode: "auto", tools: [B] } },
      },
      "tool_choice",
    ],
    "a schema of a response": [
      "responses",
      { input: "Hi", text: { format: { type: "json_schema", name: "x", schema } } },
      "text.format.schema",
    ],
    "an output without its call": [
      "responses",
      { instructions: "Be brief", input: [HI, { type: "function_call_output", call_id: "1", output: "x" }] },
      "input[1].call_id",
    ],
    "a call without a name": [
      "responses",
      { input: [HI, { type: "function_call", call_id: "1", arguments: "{}" }] },
      "input[1].tool_calls[0].function.name",
    ],
    "a response's tool": ["responses", { input: "Hi", tools: [{ type: "function", name: "a b" }] }, "tools[0].name"],
    "a response of no room": ["responses", { input: "Hi", max_output_tokens: 10_000 }, "input"],
    "a stored prompt": ["responses", { input: "Hi", prompt: { id: "pmpt_1" } }, "prompt"],
    "log-probabilities of a response": [
      "responses",
      { input: "Hi", include: ["message.output_text.logprobs"] },
      "include",
    ],
    "a result without its call": [
      "messages",
      { system: "x", messages: [{ role: "user", content: [result] }] },
      "messages[0].content",
    ],
    "a result without an id": [
      "messages",
      { messages: [{ role: "user", content: [{ type: "tool_result", content: "x" }] }] },
      "messages[0].content[0].tool_use_id",
    ],
    "a block without its text": [
      "messages",
      { messages: [{ role: "user", content: [{ type: "text" }] }] },
      "messages[0].content[0].text",
    ],
    "an empty stop sequence": ["messages", { messages: [HI], stop_sequences: ["a", ""] }, "stop_sequences[1]"],
    "a message's tool": [
      "messages",
      { messages: [HI], tools: [{ name: "a", input_schema: schema, strict: true }] },
      "tools[0].input_schema",
    ],
    "servers of tools": ["messages", { messages: [HI], mcp_servers: [{ type: "url", url: "x" }] }, "mcp_servers"],
  };
  for (const [name, [api, body, param]] of Object.entries(cases)) {
    await t.step(name, () => assert.equal(refusalOf(api, body).param, param));
  }
  assert.match(
    refusalOf("responses", { input: "Hi", text: { format: { type: "json_schema", schema } } }).message,
    /schema at #\/not/,
  );
});

Deno.test("counting takes what Messages take", () => {
  const body = {
    model: "m",
    messages: [HI, { role: "assistant", content: "The answer" }],
    "output_config": { effort: "low" },
  };
  assert.equal(countTokens(text, body, CONTEXT).input_tokens, prepared("messages", body).prompts[0]?.tokens.length);
});

Deno.test("fields beyond an API's own are those of chat, and are checked as there", () => {
  for (const api of ["responses", "messages"] as const) {
    const body = api === "messages" ? { messages: [HI] } : { input: [HI] };
    for (const [field, value] of Object.entries({ attention: { mode: "odd" }, seed: "x", min_p: 2, cache_salt: 1 })) {
      assert.match(refusalOf(api, { ...body, [field]: value }).param ?? "", new RegExp(`^${field}`), api);
    }
    const { sampling } = prepared(api, { ...body, seed: 7 });
    assert.deepEqual(sampling, prepared("chat", { messages: [HI], seed: 7 }).sampling);
  }
});
