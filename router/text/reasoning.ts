/** Whether an answer begins with reasoning, and what that means for its grammar. Knows the two markers. */

import { type AnswerForm, THINK } from "../answer/answer_part.ts";
import type { GrammarSpec } from "../grammar/grammar_spec.ts";
import type { ModelText } from "./model_text.ts";

/** @param prompt as the template rendered it */
export function reasoningOf({ template }: ModelText, prompt: string): AnswerForm["reasoning"] {
  if (![template, template?.forTools].some((one) => one?.source.includes(THINK.end))) return undefined;
  const end = prompt.trimEnd();
  if (end.endsWith(THINK.begin)) return "open";
  // Templates switch reasoning off with an empty one.
  return end.endsWith(THINK.end) ? undefined : "optional";
}

/** The grammar holds for what comes after the reasoning. */
export function afterReasoning(spec: GrammarSpec, reasoning: AnswerForm["reasoning"]): GrammarSpec {
  if (reasoning !== "open") return spec;
  const thoughts: GrammarSpec = { kind: "tag", begin: "", content: { kind: "any" }, end: `${THINK.end}\n\n` };
  return { kind: "sequence", parts: [thoughts, spec] };
}
