/**
 * The tools of a request: what the template gets of them, how their calls are read, and the grammar of calls that must
 * be made or must be valid. Knows tools and formats; knows nothing of HTTP or of answers.
 */

import type { AnswerForm, ToolFormatName } from "../answer/answer_part.ts";
import { callGrammar, formatOfTemplate, TOOL_FORMATS } from "../answer/tool_formats.ts";
import { RequestError } from "../errors.ts";
import { normalizeSchema } from "../grammar/json_schema.ts";
import type { MessageBody } from "../body/message_schema.ts";
import type { ToolBody, ToolsBody } from "../body/schemas.ts";
import type { AnswerGrammar } from "./answer_grammar.ts";
import type { ModelText } from "./model_text.ts";

/** What the tools of a request amount to. */
export interface ToolPlan {
  readonly form: AnswerForm["tools"];
  readonly grammar: AnswerGrammar | undefined;
  /** For the template; undefined: none. */
  readonly tools: readonly ToolBody[] | undefined;
  /** For a template that knows no tools: their description for the model. */
  readonly instructions: string | undefined;
}

/** Of voluntary calls: the schema is the model's to follow. */
const ANY_ARGUMENTS = { type: "object" } as const;

const NO_TOOLS: ToolPlan = { form: undefined, grammar: undefined, tools: undefined, instructions: undefined };

/** What `tool_choice` comes to. */
interface Choice {
  /** Those that may be called. */
  readonly callable: readonly ToolBody[];
  /** Whether one must be called. */
  readonly isRequired: boolean;
  /** Whether at most one may be. */
  readonly isSingle: boolean;
}

/**
 * @throws {RequestError} `invalid_request` for a choice without its tool, for two tools of one name, or for a schema that is
 * not valid
 */
export function planTools(text: ModelText, body: ToolsBody): ToolPlan {
  const tools = body.tools ?? [];
  const choice = body.tool_choice ?? "auto";
  if (tools.length === 0) {
    if (choice === "none" || choice === "auto") return NO_TOOLS;
    throw refusal("tool_choice", `Cannot call a tool: tool_choice asks for one, but no tools are given`);
  }
  checkNames(tools);
  if (choice === "none") return NO_TOOLS;
  const chosen = choiceOf(tools, body);
  const source = text.template?.forTools.source ?? "";
  const written = text.toolFormat ?? formatOfTemplate(source);
  const format = written ?? "hermes";
  return {
    form: { format, names: chosen.callable.map(nameOf) },
    grammar: grammarOf(format, tools, chosen),
    tools,
    instructions: source.includes("tools") ? undefined : describeTools(format, tools),
  };
}

function nameOf(tool: ToolBody): string {
  return tool.function.name;
}

/** A call names its tool, so two tools must not share a name. */
function checkNames(tools: readonly ToolBody[]): void {
  const seen = new Set<string>();
  tools.map(nameOf).forEach((name, i) => {
    if (seen.has(name)) {
      throw refusal(`tools[${i}].function.name`, `Cannot offer tools: more than one is called "${name}"`);
    }
    seen.add(name);
  });
}

function choiceOf(tools: readonly ToolBody[], body: ToolsBody): Choice {
  const choice = body.tool_choice ?? "auto";
  const isSingle = body.parallel_tool_calls === false;
  if (typeof choice === "string") return { callable: tools, isRequired: choice === "required", isSingle };
  const named = choice.type === "function" ? [choice] : choice.allowed_tools.tools;
  const callable = named.map((one) => {
    const known = tools.find((tool) => nameOf(tool) === one.function.name);
    if (known !== undefined) return known;
    const name = one.function.name.slice(0, 128);
    throw refusal("tool_choice", `Cannot call a tool: "${name}" is not among the tools`);
  });
  if (choice.type === "function") return { callable, isRequired: true, isSingle: true };
  return { callable: [...new Set(callable)], isRequired: choice.allowed_tools.mode === "required", isSingle };
}

function grammarOf(
  format: ToolFormatName,
  tools: readonly ToolBody[],
  { callable, isRequired, isSingle }: Choice,
): AnswerGrammar | undefined {
  const areKept = isRequired || callable.some((tool) => tool.function.strict);
  // Only a grammar keeps the model from calling others that it knows of, or more than one.
  if (!areKept && !isSingle && callable.length === tools.length) return undefined;
  const calls = callable.map((tool) => ({
    name: nameOf(tool),
    parameters: areKept ? parametersOf(tool, `tools[${tools.indexOf(tool)}].function.parameters`) : ANY_ARGUMENTS,
  }));
  return { spec: callGrammar(format, calls, { isRequired, isSingle }), param: isRequired ? "tool_choice" : "tools" };
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
