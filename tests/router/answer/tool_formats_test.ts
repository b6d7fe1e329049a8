/** The format of tool calls that a chat template writes, by what such templates have in common. */

import assert from "node:assert/strict";

import { formatOfTemplate } from "../../../router/answer/tool_formats.ts";

/** In the manner of the model families' own templates, as short as possible. */
const TEMPLATES: readonly (readonly [family: string, template: string, format: string | undefined])[] = [
  [
    "Qwen",
    "{%- if tools %}# Tools\nFor each function call, return a json object within <tool_call></tool_call> tags{% endif %}",
    "hermes",
  ],
  [
    "Hermes",
    '{% for tool in tools %}{{ tool|tojson }}{% endfor %}<tool_call>\n{"name": <name>, "arguments": <args>}\n</tool_call>',
    "hermes",
  ],
  [
    "Llama 3.1",
    '{%- if builtin_tools %}<|python_tag|>{% endif %}{% if tools %}{"name": function, "parameters": {} }{% endif %}',
    "llama",
  ],
  ["Llama 3.2", '{% if tools %}Respond in the format {"name": function name, "parameters": {}}{% endif %}', "llama"],
  ["Mistral v3", "[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{{ '[TOOL_CALLS] [' }}", "mistral"],
  ["Mistral v11", "{{ '[TOOL_CALLS]' + call.function.name + '[ARGS]' + arguments }}", "mistral"],
  ["unknown, with tools", "{{ tools | tojson }}", "hermes"],
  ["without tools", "{% for message in messages %}{{ message.content }}{% endfor %}", undefined],
];

Deno.test("formatOfTemplate() knows the families by what their templates write", () => {
  for (const [family, template, format] of TEMPLATES) assert.equal(formatOfTemplate(template), format, family);
});
