/** The parts of an answer's text, and how they are recognised. Plain data; crosses threads by structured clone. */

/** A piece of one part of an answer, in the order of the text. */
export type AnswerPart =
  | { readonly kind: "content"; readonly text: string }
  | { readonly kind: "reasoning"; readonly text: string }
  /** A tool call begins. Its arguments follow as JSON text, in pieces. */
  | { readonly kind: "call"; readonly index: number; readonly name: string }
  | { readonly kind: "arguments"; readonly index: number; readonly text: string };

/** How a model writes tool calls. */
export type ToolFormatName = "hermes" | "llama" | "mistral";

/** How the text of an answer is read. */
export interface AnswerForm {
  /** Undefined: no tools were offered, everything is content. */
  readonly tools: { readonly format: ToolFormatName; readonly names: readonly string[] } | undefined;
  /** `open`: the prompt ends within the reasoning; `optional`: the answer may begin with some; undefined: there is none. */
  readonly reasoning: "open" | "optional" | undefined;
}

/** An answer that is all content. */
export const PLAIN: AnswerForm = { tools: undefined, reasoning: undefined };

/** Where reasoning begins and ends. */
export const THINK = { begin: "<think>", end: "</think>" } as const;
