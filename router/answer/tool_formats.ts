/**
 * How models write tool calls: what announces one, what encloses it, and the grammar of calls that must be made.
 * A table; the reading is in `tool_call_reader.ts`.
 */

import type { GrammarSpec, JsonSchema, TaggedGrammar } from "../grammar/grammar_spec.ts";
import type { ToolFormatName } from "./answer_part.ts";

/** A way of writing calls. */
export interface ToolFormat {
  /** Announces a call. */
  readonly trigger: string;
  /** Whether an answer that begins with `{` may be a call without a trigger. */
  readonly bareStart: boolean;
  /** What may stand between the trigger, calls and closings. */
  readonly separator: RegExp;
  /** What ends calls; text follows. */
  readonly closings: readonly string[];
  /** A call whose name precedes its arguments. */
  readonly named: RegExp | undefined;
  /** Special tokens of it that are part of the text. */
  readonly markers: readonly string[];
  /** Around the arguments of a call, which are JSON. */
  readonly around: (name: string) => { readonly begin: string; readonly end: string };
  /** Around all calls, and between two of them. */
  readonly list: { readonly begin: string; readonly separator: string; readonly end: string };
}

/** By name. */
export const TOOL_FORMATS: Readonly<Record<ToolFormatName, ToolFormat>> = {
  hermes: {
    trigger: "<tool_call>",
    bareStart: false,
    separator: /^\s+/,
    closings: ["</tool_call>"],
    named: undefined,
    markers: ["<tool_call>", "</tool_call>"],
    around: (name) => ({
      begin: `<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": `,
      end: "}\n</tool_call>",
    }),
    list: { begin: "", separator: "\n", end: "" },
  },
  llama: {
    trigger: "<|python_tag|>",
    bareStart: true,
    separator: /^[\s;]+/,
    closings: [],
    named: undefined,
    markers: ["<|python_tag|>"],
    around: (name) => ({ begin: `{"name": ${JSON.stringify(name)}, "parameters": `, end: "}" }),
    list: { begin: "", separator: "; ", end: "" },
  },
  mistral: {
    trigger: "[TOOL_CALLS]",
    bareStart: false,
    separator: /^[\s,]*\[?(?=\{|$)|^[\s,]+/,
    closings: ["]"],
    named: /^([\w.-]+)\[ARGS\]/,
    markers: ["[TOOL_CALLS]", "[ARGS]"],
    around: (name) => ({ begin: `{"name": ${JSON.stringify(name)}, "arguments": `, end: "}" }),
    list: { begin: "[TOOL_CALLS][", separator: ", ", end: "]" },
  },
};

/** Special tokens that are part of calls, and that grammars therefore spell. */
export const CALL_MARKERS: readonly string[] = Object.values(TOOL_FORMATS).flatMap(({ markers }) => markers);

/** A tool as a grammar needs it. */
export interface CallableTool {
  readonly name: string;
  readonly parameters: JsonSchema;
}

/**
 * The grammar of an answer that calls tools.
 * @param isRequired nothing but calls; otherwise free text, in which calls are kept to their schemas
 * @param isSingle at most one call
 */
export function callGrammar(
  name: ToolFormatName,
  tools: readonly CallableTool[],
  { isRequired, isSingle }: { readonly isRequired: boolean; readonly isSingle: boolean },
): GrammarSpec {
  const { around, list, trigger } = TOOL_FORMATS[name];
  const tags = tools.map((tool): TaggedGrammar => ({
    kind: "tag",
    ...around(tool.name),
    content: { kind: "json", schema: tool.parameters },
  }));
  const calls: GrammarSpec = { kind: "list", tags, separator: list.separator, single: isSingle };
  const whole: GrammarSpec = list.begin === ""
    ? calls
    : { kind: "tag", begin: list.begin, content: calls, end: list.end };
  if (isRequired) return whole;
  if (list.begin === "") {
    const announced = tags.map((tag) => ({
      ...tag,
      begin: tag.begin.startsWith(trigger) ? tag.begin : trigger + tag.begin,
    }));
    return { kind: "triggered", trigger, tags: announced, required: false, single: isSingle };
  }
  // Calls of this format fill the rest of the answer.
  return {
    kind: "triggered",
    trigger,
    tags: [{ kind: "tag", begin: list.begin, content: calls, end: list.end }],
    required: false,
    single: true,
  };
}

/** The format that a chat template writes; undefined: it knows no tools. */
export function formatOfTemplate(template: string): ToolFormatName | undefined {
  if (template.includes("[TOOL_CALLS]")) return "mistral";
  if (template.includes("<tool_call>")) return "hermes";
  if (template.includes("<|python_tag|>") || /"parameters"/.test(template) && template.includes("tools")) {
    return "llama";
  }
  return template.includes("tools") ? "hermes" : undefined;
}
