/** Splits the text of an answer into its parts: reasoning first, then content and tool calls. Knows text only. */

import type { AnswerForm, AnswerPart } from "./answer_part.ts";
import { type ReadText, ReasoningReader } from "./reasoning_reader.ts";
import { ToolCallReader } from "./tool_call_reader.ts";

/** Reads one answer; what `push` and `flush` give does not depend on how the text is cut, joins of neighbours aside. */
export class AnswerReader {
  readonly #reasoning: ReasoningReader;
  readonly #calls: ToolCallReader | undefined;

  constructor({ reasoning, tools }: AnswerForm) {
    this.#reasoning = new ReasoningReader(reasoning);
    this.#calls = tools && new ToolCallReader(tools);
  }

  /** Takes the next piece of text. @returns the parts that are certain now */
  push(text: string): AnswerPart[] {
    return text === "" ? [] : this.#reasoning.push(text).flatMap((read) => this.#parts(read));
  }

  /** Ends the answer. @returns what was held */
  flush(): AnswerPart[] {
    return [...this.#reasoning.flush().flatMap((read) => this.#parts(read)), ...(this.#calls?.flush() ?? [])];
  }

  #parts({ kind, text }: ReadText): AnswerPart[] {
    if (kind === "content" && this.#calls !== undefined) return this.#calls.push(text);
    return [{ kind, text }];
  }
}
