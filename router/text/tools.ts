/**
 * The tools of a request: what the template gets of them, how their calls are read, and the grammar of calls that must
 * be made or must be valid. Knows tools and formats; knows nothing of HTTP or of answers.
 */

import type { AnswerForm, ToolFormatName } from "../answer/answer_part.ts";
import { callGrammar, formatOfTemplate, TOOL_FORMATS } from "../answer/tool_formats.ts";
import { RequestError } from "../errors.ts";
import { normalizeSchema } from "../grammar/json_schema.ts";
import type { MessageBody, ToolBody, ToolsBody } from "../body/schemas.ts";
import type { AnswerGrammar } from "./answer_grammar.ts";
import type { ModelText } from "./model_text.ts";

/** What the tools of a request amount to. */
export interface ToolPlan {
  readonly form: AnswerForm["tools"];
  readonly grammar: AnswerGrammar | undefined;
  /** For the template; undefined: none. */
  readonly tools: readonly ToolBody[] | undefined;
  /** For a template that knows no tools: what the model is told of them. */
  readonly instructions: string | undefined;
}

const NO_TOOLS: ToolPlan = { form: undefined, grammar: undefined, tools: undefined, instructions: undefined };

/**
 * @throws {RequestError} `invalid_request` for a choice without its tool, or a schema that is not valid
 */
export function planTools(text: ModelText, body: ToolsBody): ToolPlan {
  const tools = body.tools ?? [];
  const choice = body.tool_choice ?? "auto";
  if (tools.length === 0) {
    if (choice === "none" || choice === "auto") return NO_TOOLS;
    throw refusal("tool_choice", `Cannot call a tool: tool_choice asks for one, but no tools are given`);
  }
  if (choice === "none") return NO_TOOLS;
  const source = text.template?.forTools.source ?? "";
  const written = text.toolFormat ?? formatOfTemplate(source);
  const format = written ?? "hermes";
  return {
    form: { format, names: tools.map((tool) => tool.function.name) },
    grammar: grammarOf(format, tools, body),
    tools,
    instructions: source.includes("tools") ? undefined : describeTools(format, tools),
  };
}

function grammarOf(format: ToolFormatName, tools: readonly ToolBody[], body: ToolsBody): AnswerGrammar | undefined {
  const choice = body.tool_choice ?? "auto";
  const named = typeof choice === "object" ? choice.function.name : undefined;
  const offered = named === undefined ? tools : tools.filter((tool) => tool.function.name === named);
  if (offered.length === 0) throw refusal("tool_choice", `Cannot call a tool: "${named}" is not among the tools`);
  const isRequired = choice === "required" || named !== undefined;
  if (!isRequired && !offered.some((tool) => tool.function.strict)) return undefined;
  const callable = offered.map((tool) => ({
    name: tool.function.name,
    parameters: parametersOf(tool, `tools[${tools.indexOf(tool)}].function.parameters`),
  }));
  const isSingle = named !== undefined || body.parallel_tool_calls === false;
  return { spec: callGrammar(format, callable, { isRequired, isSingle }), param: isRequired ? "tool_choice" : "tools" };
}

function parametersOf({ function: { parameters } }: ToolBody, param: string) {
  const schema = parameters && Object.keys(parameters).length > 0 ? parameters : { type: "object", properties: {} };
  return normalizeSchema(schema, param);
}

/** For templates that have no place for tools. */
function describeTools(format: ToolFormatName, tools: readonly ToolBody[]): string {
  const { around, list } = TOOL_FORMATS[format];
  const { begin, end } = around("NAME");
  return [
    "You may call these functions:",
    ...tools.map((tool) => JSON.stringify(tool.function)),
    `To call one, answer with ${list.begin}${begin}{ARGUMENTS AS JSON}${end}${list.end}`,
  ].join("\n");
}

/**
 * Checks that results follow their calls.
 * @throws {RequestError} `invalid_request`
 */
export function checkToolResults(messages: readonly MessageBody[]): void {
  let open: ReadonlySet<unknown> = new Set();
  messages.forEach((message, i) => {
    if (message.role === "assistant") open = new Set((message.tool_calls ?? []).map(({ id }) => id));
    if (message.role !== "tool") return;
    const param = `messages[${i}].tool_call_id`;
    if (open.has(message.tool_call_id)) return;
    const id = JSON.stringify(message.tool_call_id ?? null).slice(0, 60);
    throw refusal(param, `Cannot accept the request: ${param}: no call ${id} comes before this result`);
  });
}

function refusal(param: string, message: string): RequestError {
  return new RequestError("invalid_request", message, { param });
}
