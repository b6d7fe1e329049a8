/** Which of a model's chat templates renders a request, and that calls are then read in the format of that one. */

import assert from "node:assert/strict";

import { withFiles } from "../../support/model_directory.ts";
import { MODEL_DIRECTORY, TestService } from "../../support/test_service.ts";

const TURNS = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}";

/** As older models have them, Hermes 2 and Command R among them: one for talk, one for tools (here in Mistral's form). */
const TEMPLATES = [
  { name: "default", template: `plain:${TURNS}` },
  { name: "tool_use", template: `tools {{ tools[0].function.name }} [TOOL_CALLS] {# tool_calls #}:${TURNS}` },
];

const TOOLS = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];

Deno.test("of several chat templates, the one named tool_use renders a request with tools, and default any other", async () => {
  const read = (name: string) => Deno.readTextFile(`${MODEL_DIRECTORY}/${name}`);
  const config = JSON.parse(await read("tokenizer_config.json"));
  const files: Record<string, string | object> = { "tokenizer_config.json": { ...config, "chat_template": TEMPLATES } };
  for (const name of ["config.json", "generation_config.json", "tokenizer.json"]) files[name] = await read(name);
  await withFiles(files, async (directory) => {
    using service = await TestService.open({}, directory);
    service.say('[TOOL_CALLS] [{"name": "weather", "arguments": {}}]');
    const promptOf = () => service.tokenizer.decode(service.generator.requests.at(-1)?.promptTokens ?? []);

    const { choices: [called] } = await (await service.chat({ tools: TOOLS })).json();
    assert.equal(promptOf(), "tools weather [TOOL_CALLS] :[user]Hi");
    assert.equal(called.finish_reason, "tool_calls");
    assert.equal(called.message.tool_calls[0].function.name, "weather");

    await (await service.chat()).body?.cancel();
    assert.equal(promptOf(), "plain:[user]Hi");
    await (await service.chat({ tools: TOOLS, tool_choice: "none" })).body?.cancel();
    assert.equal(promptOf(), "plain:[user]Hi");
  });
});
