/** Rendered prompts against the recorded ones, every place a template may stand, and templates that refuse. */

import assert from "node:assert/strict";

import { type ChatMessage, ChatTemplate } from "../../../engine/text/chat_template.ts";
import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { readFixture, TIDE, withFiles } from "../../support/model_directory.ts";

interface Conversation {
  readonly id: string;
  readonly messages: readonly ChatMessage[];
  readonly prompt: string;
  readonly "prompt_ids": number[];
}

const ASK = { addGenerationPrompt: true } as const;

Deno.test("ChatTemplate.render() gives the recorded prompts and their ids", async () => {
  const template = await ChatTemplate.load(TIDE);
  const tokenizer = await Tokenizer.load(TIDE);
  const conversations = await readFixture<Conversation[]>("tide-10m/greedy.json");
  assert.equal(conversations.length, 12);
  for (const { messages, prompt, "prompt_ids": ids } of conversations) {
    assert.equal(template?.render(messages, ASK), prompt);
    assert.deepEqual([...tokenizer.encode(prompt)], ids);
  }
});

/** Renders with the template of a directory that holds these files. */
async function renderWith(
  files: Parameters<typeof withFiles>[0],
  options: Parameters<ChatTemplate["render"]>[1] = ASK,
) {
  let prompt: string | undefined;
  await withFiles(files, async (directory) => {
    prompt = (await ChatTemplate.load(directory))?.render([{ role: "user", content: " hi " }], options);
  });
  return prompt;
}

const CONFIG = "tokenizer_config.json";
const TOKENS = { "bos_token": "<s>", "eos_token": { content: "</s>", lstrip: false }, "pad_token": null };
const TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content | trim }}{{ eos_token }}{% endfor %}";

Deno.test("ChatTemplate.load() finds a text, a list of named ones, or a file of its own, which wins", async () => {
  const expected = "<s>user:hi</s>";
  const other = { name: "tool_use", template: "tools" };
  assert.equal(await renderWith({ [CONFIG]: { ...TOKENS, "chat_template": TEMPLATE } }), expected);
  const named = [other, { name: "default", template: TEMPLATE }];
  assert.equal(await renderWith({ [CONFIG]: { ...TOKENS, "chat_template": named } }), expected);
  const first = [{ name: "rag", template: TEMPLATE }, other];
  assert.equal(await renderWith({ [CONFIG]: { ...TOKENS, "chat_template": first } }), expected);
  assert.equal(
    await renderWith({ [CONFIG]: { ...TOKENS, "chat_template": "no" }, "chat_template.jinja": TEMPLATE }),
    expected,
  );
});

Deno.test("ChatTemplate.forTools is the one named tool_use among several, else the template itself", async () => {
  const load = async (template: unknown) => {
    let loaded: ChatTemplate | undefined;
    await withFiles({ [CONFIG]: { ...TOKENS, "chat_template": template } }, async (directory) => {
      loaded = await ChatTemplate.load(directory);
    });
    return loaded ?? assert.fail("there is a template");
  };
  const toolUse = { name: "tool_use", template: "{{ bos_token }}{{ tools[0].name }}" };
  const several = await load([{ name: "default", template: TEMPLATE }, toolUse]);
  const options = { ...ASK, tools: [{ name: "weather" }] };
  assert.equal(several.render([USER], options), several.render([USER], ASK));
  assert.equal(several.forTools.render([USER], options), "<s>weather");
  const one = await load(TEMPLATE);
  assert.equal(one.forTools, one);
  await assert.rejects(load([{ name: "default", template: TEMPLATE }, { name: "tool_use", template: "{% for %}" }]), {
    code: "invalid_model",
    message: /^Cannot read .*tokenizer_config\.json, chat_template tool_use: /,
  });
});

Deno.test("ChatTemplate.load() is undefined for a model without a template", async () => {
  assert.equal(await renderWith({ [CONFIG]: TOKENS }), undefined);
});

Deno.test("ChatTemplate.load() names the file that does not parse", async () => {
  const invalid = (message: RegExp) => ({ name: "EngineError", code: "invalid_model", message });
  await assert.rejects(renderWith({}), invalid(/tokenizer_config\.json: no such file$/));
  await assert.rejects(
    renderWith({ [CONFIG]: { "chat_template": "{% for %}" } }),
    invalid(/^Cannot read .*tokenizer_config\.json, chat_template: /),
  );
  await assert.rejects(
    renderWith({ [CONFIG]: {}, "chat_template.jinja": "{{ a" }),
    invalid(/^Cannot read .*chat_template\.jinja: /),
  );
  await assert.rejects(
    renderWith({ [CONFIG]: { "chat_template": 3 } }),
    invalid(/chat_template must be a string, given 3$/),
  );
});

const USER = { role: "user", content: "Say e" };

Deno.test("ChatTemplate.render() ends inside the last message when that is to go on", async () => {
  const template = await ChatTemplate.load(TIDE);
  const go = { addGenerationPrompt: false, continueFinalMessage: true } as const;
  // The text also occurs in the message before, and inside the end marker after it.
  const prompt = template?.render([USER, { role: "assistant", content: "e" }], go);
  assert.equal(prompt, "<|bos|><|user|>\nSay e<|end|>\n<|assistant|>\ne");
  const spaced = template?.render([USER, { role: "assistant", content: " Yes, " }], go);
  assert.equal(spaced, "<|bos|><|user|>\nSay e<|end|>\n<|assistant|>\nYes, ");
  assert.throws(() => template?.render([USER], { addGenerationPrompt: true, continueFinalMessage: true }), {
    code: "invalid_text",
    message: /not both$/,
  });
  assert.throws(() => new ChatTemplate("fixed", {}).render([USER], go), {
    code: "invalid_text",
    message: /lacks the last/,
  });
});

Deno.test("ChatTemplate.render() passes further variables, which cannot replace the messages", () => {
  const template = new ChatTemplate("{% if enable_thinking %}think {% endif %}{{ messages[0].content }}", {});
  assert.equal(template.render([USER], { ...ASK, kwargs: { "enable_thinking": true } }), "think Say e");
  assert.equal(template.render([USER], { ...ASK, kwargs: { messages: [] } }), "Say e");
});

Deno.test("ChatTemplate.render() reports a refusal in the template's own words", () => {
  const template = new ChatTemplate("{{ raise_exception('Roles must alternate') }}", {});
  assert.throws(() => template.render([USER], ASK), {
    name: "EngineError",
    code: "invalid_text",
    message: "Cannot render chat: Roles must alternate",
  });
  const failing = new ChatTemplate("{{ messages[0].content | no_such_filter }}", {});
  assert.throws(() => failing.render([USER], ASK), { code: "invalid_text", message: /^Cannot render chat: / });
});
