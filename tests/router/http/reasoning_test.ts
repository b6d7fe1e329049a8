/** Answers that reason first, over every API: what is separated, what is counted, what the template receives. */

import assert from "node:assert/strict";

import { MODEL_DIRECTORY, TestService, tokensOf } from "../../support/test_service.ts";

/** In the manner of Qwen3's: reasoning unless it is switched off, and earlier reasoning only if it is to be kept. */
const TEMPLATE = `{% for message in messages %}[{{ message.role }}]
{%- if message.reasoning_content and preserve_thinking %}<think>{{ message.reasoning_content }}</think>{% endif %}
{{- message.content }}{% endfor %}[assistant]
{%- if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}`;

const THOUGHT = "Is it so? It is.";
const ANSWER = `<think>${THOUGHT}</think>\n\nYes.`;
const MESSAGES = [{ role: "user", content: "Is it so?" }];

/** A service whose model has text files of the embedded one, and a template that knows reasoning. */
async function thinking(test: (service: TestService, reasoningTokens: number) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    for (const name of ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]) {
      await Deno.symlink(`${MODEL_DIRECTORY}/${name}`, `${directory}/${name}`);
    }
    await Deno.writeTextFile(`${directory}/chat_template.jinja`, TEMPLATE);
    using service = await TestService.open({}, directory);
    service.say(ANSWER);
    await test(service, reasoningTokensOf(service));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Tokens up to the one that completes the closing marker. */
function reasoningTokensOf({ tokenizer }: TestService): number {
  const ids = tokensOf(tokenizer, ANSWER);
  return ids.findIndex((_, i) => tokenizer.decode(ids.slice(0, i + 1)).includes("</think>")) + 1;
}

function promptOf({ generator, tokenizer }: TestService): string {
  return tokenizer.decode(generator.requests.at(-1)?.promptTokens ?? []);
}

async function json(response: Response) {
  const body = await response.json();
  assert.equal(response.status, 200, JSON.stringify(body));
  return body;
}

Deno.test("reasoning is separated and counted: chat, Responses, Messages", () =>
  thinking(async (service, reasoningTokens) => {
    assert.ok(reasoningTokens > 3);
    const chat = await json(await service.chat());
    assert.deepEqual(
      [chat.choices[0].message.reasoning_content, chat.choices[0].message.content],
      [THOUGHT, "Yes."],
    );
    assert.equal(chat.usage.completion_tokens_details.reasoning_tokens, reasoningTokens);
    assert.ok(chat.usage.completion_tokens > reasoningTokens);

    const response = await json(await service.post("/v1/responses", { input: "Is it so?" }));
    assert.deepEqual(response.output.map(({ type }: { type: string }) => type), ["reasoning", "message"]);
    assert.equal(response.output[0].content[0].text, THOUGHT);
    assert.equal(response.usage.output_tokens_details.reasoning_tokens, reasoningTokens);

    const message = await json(
      await service.post("/v1/messages", { model: "org/tide", max_tokens: 99, messages: MESSAGES }),
    );
    assert.deepEqual(message.content, [
      { type: "thinking", thinking: THOUGHT, signature: "" },
      { type: "text", text: "Yes." },
    ]);
  }));

Deno.test("reasoning is counted over all choices, as it streams, and when the length cuts it off", () =>
  thinking(async (service, reasoningTokens) => {
    const two = await json(await service.chat({ n: 2 }));
    assert.equal(two.usage.completion_tokens_details.reasoning_tokens, 2 * reasoningTokens);
    const maxTokens = reasoningTokens - 2;
    const cut = await json(await service.chat({ max_tokens: maxTokens }));
    assert.deepEqual(cut.usage.completion_tokens_details, { reasoning_tokens: maxTokens });
    assert.equal(cut.choices[0].message.content, "");
    const options = { "include_usage": true, "continuous_usage_stats": true };
    const text = await (await service.chat({ stream: true, stream_options: options })).text();
    const chunks = text.split("\n\n").filter((frame) => frame.startsWith("data: {"))
      .map((frame) => JSON.parse(frame.slice(6)));
    const counts = chunks.map(({ usage }) => usage.completion_tokens_details.reasoning_tokens);
    assert.deepEqual(counts, counts.toSorted((a, b) => a - b));
    assert.equal(counts.at(-1), reasoningTokens);
    const told = chunks.map(({ choices }) => choices[0]?.delta.reasoning_content ?? "").join("");
    assert.equal(told, THOUGHT);
  }));

Deno.test("an answer without reasoning has no reasoning tokens", () =>
  thinking(async (service) => {
    service.say("Yes.");
    const { usage, choices } = await json(await service.chat());
    assert.equal(usage.completion_tokens_details.reasoning_tokens, 0);
    assert.ok(!("reasoning_content" in choices[0].message));
  }));

Deno.test("chat_template_kwargs reach the template: enable_thinking, preserve_thinking", () =>
  thinking(async (service) => {
    const messages = [
      ...MESSAGES,
      { role: "assistant", content: "Yes.", reasoning_content: THOUGHT },
      { role: "user", content: "Sure?" },
    ];
    await json(await service.post("/v1/chat/completions", { messages }));
    assert.ok(!promptOf(service).includes(THOUGHT), "the template drops earlier reasoning");
    const kept = { messages, "chat_template_kwargs": { preserve_thinking: true } };
    await json(await service.post("/v1/chat/completions", kept));
    assert.ok(promptOf(service).includes(`<think>${THOUGHT}</think>Yes.`), promptOf(service));
    const off = await json(await service.chat({ chat_template_kwargs: { enable_thinking: false } }));
    assert.ok(promptOf(service).endsWith("<think></think>"));
    assert.equal(off.choices[0].message.content, ANSWER, "then nothing of the answer counts as reasoning");
    await json(
      await service.post("/v1/messages", {
        model: "org/tide",
        max_tokens: 9,
        messages: MESSAGES,
        thinking: { type: "disabled" },
      }),
    );
    assert.ok(promptOf(service).endsWith("<think></think>"));
  }));
