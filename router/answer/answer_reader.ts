/** Splits the text of an answer into its parts: reasoning first, then content and tool calls. Knows text only. */

import type { AnswerForm, AnswerPart } from "./answer_part.ts";
import { type ReadText, ReasoningReader } from "./reasoning_reader.ts";
import { ToolCallReader } from "./tool_call_reader.ts";

/** Reads one answer; what `push` and `flush` give does not depend on how the text is cut, joins of neighbours aside. */
export class AnswerReader {
  readonly #reasoning: ReasoningReader;
  readonly #calls: ToolCallReader | undefined;
  #hasReasoned: boolean;

  constructor({ reasoning, tools }: AnswerForm) {
    this.#reasoning = new ReasoningReader(reasoning);
    this.#hasReasoned = reasoning === "open";
    this.#calls = tools && new ToolCallReader(tools);
  }

  /** Whether reasoning goes on, or the answer has not shown yet that there is none. */
  get mayReason(): boolean {
    return this.#reasoning.state !== "content";
  }

  /** Whether the answer has shown that it reasons. */
  get hasReasoned(): boolean {
    return this.#hasReasoned;
  }

  /** Takes the next piece of text. @returns the parts that are certain now */
  push(text: string): AnswerPart[] {
    if (text === "") return [];
    const read = this.#reasoning.push(text);
    this.#hasReasoned ||= this.#reasoning.state === "reasoning" || read.some(({ kind }) => kind === "reasoning");
    return read.flatMap((one) => this.#parts(one));
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
