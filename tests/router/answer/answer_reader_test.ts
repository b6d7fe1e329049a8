import assert from "node:assert/strict";

import type { AnswerForm, AnswerPart } from "../../../router/answer/answer_part.ts";
import { AnswerReader } from "../../../router/answer/answer_reader.ts";

const tools = (format: "hermes" | "llama" | "mistral") => ({ format, names: ["weather", "add"] });

interface Transcript {
  readonly name: string;
  readonly form: AnswerForm;
  readonly text: string;
  readonly reasoning?: string;
  readonly content?: string;
  readonly calls?: readonly (readonly [name: string, args: string])[];
}

const ARGS = '{"city": "Köln \\"x\\" }", "days": [1, {"a": 2}]}';

/** As models write them, from their templates and model cards. */
const TRANSCRIPTS: readonly Transcript[] = [
  {
    name: "plain",
    form: { tools: undefined, reasoning: undefined },
    text: "Just <b>text</b>",
    content: "Just <b>text</b>",
  },
  {
    name: "hermes, one call after text",
    form: { tools: tools("hermes"), reasoning: undefined },
    text: `Let me see.\n<tool_call>\n{"name": "weather", "arguments": ${ARGS}}\n</tool_call>`,
    content: "Let me see.",
    calls: [["weather", ARGS]],
  },
  {
    name: "hermes, two calls, arguments first",
    form: { tools: tools("hermes"), reasoning: undefined },
    text:
      `<tool_call>\n{"arguments": {"a": 1}, "name": "add"}\n</tool_call>\n<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>`,
    calls: [["add", '{"a": 1}'], ["weather", "{}"]],
  },
  {
    name: "hermes, a call without arguments before one with some",
    form: { tools: tools("hermes"), reasoning: undefined },
    text:
      `<tool_call>\n{"name": "weather"}\n</tool_call>\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>`,
    calls: [["weather", "{}"], ["add", '{"a": 1}']],
  },
  {
    name: "hermes, a tag that is none",
    form: { tools: tools("hermes"), reasoning: undefined },
    text: "write <tool_box> or <tool_call> here",
    content: "write <tool_box> or <tool_call> here",
  },
  {
    name: "qwen, thinking first",
    form: { tools: tools("hermes"), reasoning: "optional" },
    text:
      `<think>\nThe user wants it.\n\nSo.\n</think>\n\nSure.<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>`,
    reasoning: "The user wants it.\n\nSo.",
    content: "Sure.",
    calls: [["add", '{"a": 1}']],
  },
  {
    name: "thinking that the prompt began",
    form: { tools: undefined, reasoning: "open" },
    text: "Hm, <b>\n</think>\n\nYes </think>",
    reasoning: "Hm, <b>",
    content: "Yes </think>",
  },
  { name: "no thinking", form: { tools: undefined, reasoning: "optional" }, text: "<thin air", content: "<thin air" },
  {
    name: "thinking without an end",
    form: { tools: undefined, reasoning: "open" },
    text: "on and on </thi",
    reasoning: "on and on </thi",
  },
  {
    name: "llama, a bare object",
    form: { tools: tools("llama"), reasoning: undefined },
    text: `{"name": "weather", "parameters": ${ARGS}}`,
    calls: [["weather", ARGS]],
  },
  {
    name: "llama, after the tag, two calls",
    form: { tools: tools("llama"), reasoning: undefined },
    text:
      `<|python_tag|>{"type": "function", "name": "add", "parameters": {"a": 1}}; {"name": "weather", "parameters": {}}`,
    calls: [["add", '{"a": 1}'], ["weather", "{}"]],
  },
  {
    name: "llama, JSON that is no call",
    form: { tools: tools("llama"), reasoning: undefined },
    text: '{"name": "Ada", "age": 36} it is',
    content: '{"name": "Ada", "age": 36} it is',
  },
  {
    name: "llama, an object without a name",
    form: { tools: tools("llama"), reasoning: undefined },
    text: '{"answer": {"x": 1}} done',
    content: '{"answer": {"x": 1}} done',
  },
  {
    name: "mistral, a list",
    form: { tools: tools("mistral"), reasoning: undefined },
    text: `[TOOL_CALLS] [{"name": "weather", "arguments": ${ARGS}}, {"name": "add", "arguments": {"a": 1}}]`,
    calls: [["weather", ARGS], ["add", '{"a": 1}']],
  },
  {
    name: "mistral, names before arguments",
    form: { tools: tools("mistral"), reasoning: undefined },
    text: `[TOOL_CALLS]weather[ARGS]${ARGS}[TOOL_CALLS]add[ARGS]{"a": 1}`,
    calls: [["weather", ARGS], ["add", '{"a": 1}']],
  },
];

function summary(parts: readonly AnswerPart[]) {
  const textOf = (kind: "content" | "reasoning") => parts.map((part) => (part.kind === kind ? part.text : "")).join("");
  const calls: [string, string][] = [];
  for (const part of parts) {
    if (part.kind === "call") calls[part.index] = [part.name, ""];
    const call = part.kind === "arguments" ? calls[part.index] : undefined;
    if (call !== undefined && part.kind === "arguments") call[1] += part.text;
  }
  return { reasoning: textOf("reasoning"), content: textOf("content"), calls };
}

function read(form: AnswerForm, pieces: readonly string[]) {
  const reader = new AnswerReader(form);
  return summary([...pieces.flatMap((piece) => reader.push(piece)), ...reader.flush()]);
}

for (const { name, form, text, reasoning = "", content = "", calls = [] } of TRANSCRIPTS) {
  Deno.test(`AnswerReader reads ${name}, in every cut`, () => {
    const expected = { reasoning, content, calls: calls.map((call) => [...call]) };
    assert.deepEqual(read(form, [text]), expected);
    assert.deepEqual(read(form, [...text]), expected, "by characters");
    for (let first = 0; first <= text.length; first++) {
      for (let second = first; second <= text.length; second++) {
        const pieces = [text.slice(0, first), text.slice(first, second), text.slice(second)];
        assert.deepEqual(read(form, pieces), expected, JSON.stringify(pieces));
      }
    }
  });
}

Deno.test("AnswerReader hands arguments on as they come", () => {
  const reader = new AnswerReader({ tools: tools("hermes"), reasoning: undefined });
  assert.deepEqual(reader.push('<tool_call>{"name": "add", "argu'), [{ kind: "call", index: 0, name: "add" }]);
  assert.deepEqual(reader.push('ments": {"a": 1'), [{ kind: "arguments", index: 0, text: '{"a": 1' }]);
  assert.deepEqual(reader.push("2}"), [{ kind: "arguments", index: 0, text: "2}" }]);
});
