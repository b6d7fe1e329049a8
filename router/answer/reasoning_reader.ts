/** Separates the reasoning of an answer from its content, wherever the text is cut. Knows the two markers only. */

import { type AnswerForm, THINK } from "./answer_part.ts";
import { splitAt } from "./held_text.ts";

/** A piece of text, and which it is. */
export interface ReadText {
  readonly kind: "reasoning" | "content";
  readonly text: string;
}

/** Reads one answer. Line breaks next to the markers belong to neither side. */
export class ReasoningReader {
  #state: "start" | "reasoning" | "content";
  #held = "";
  #trimsStart = false;

  constructor(reasoning: AnswerForm["reasoning"]) {
    this.#state = reasoning === undefined ? "content" : reasoning === "open" ? "reasoning" : "start";
    this.#trimsStart = reasoning === "open";
  }

  /** Where the answer is; `start`: it may yet begin with reasoning. */
  get state(): "start" | "reasoning" | "content" {
    return this.#state;
  }

  /** Takes the next piece. @returns what is certain now */
  push(piece: string): ReadText[] {
    if (this.#state === "content") return this.#content(piece);
    const text = this.#held + piece;
    this.#held = "";
    if (this.#state === "start") return this.#start(text);
    const { before, held, after } = splitAt(text, THINK.end);
    if (after === undefined) {
      // Line breaks may stand before the marker that is not complete yet.
      const kept = before.replace(/\s+$/, "");
      this.#held = before.slice(kept.length) + held;
      return this.#reasoning(kept);
    }
    this.#state = "content";
    const reasoning = this.#reasoning(before.replace(/\s+$/, ""));
    this.#trimsStart = true;
    return [...reasoning, ...this.#content(after)];
  }

  /** Ends the answer. @returns what was held */
  flush(): ReadText[] {
    const text = this.#held;
    this.#held = "";
    if (text === "") return [];
    return this.#state === "reasoning" ? this.#reasoning(text) : [{ kind: "content", text }];
  }

  #start(text: string): ReadText[] {
    const trimmed = text.trimStart();
    if (trimmed.startsWith(THINK.begin)) {
      this.#state = "reasoning";
      this.#trimsStart = true;
      return this.push(trimmed.slice(THINK.begin.length));
    }
    if (THINK.begin.startsWith(trimmed)) {
      this.#held = text;
      return [];
    }
    this.#state = "content";
    return this.#content(text);
  }

  #reasoning(text: string): ReadText[] {
    const rest = this.#trimmed(text);
    return rest === "" ? [] : [{ kind: "reasoning", text: rest }];
  }

  #content(text: string): ReadText[] {
    const rest = this.#trimmed(text);
    return rest === "" ? [] : [{ kind: "content", text: rest }];
  }

  #trimmed(text: string): string {
    const rest = this.#trimsStart ? text.trimStart() : text;
    if (rest !== "") this.#trimsStart = false;
    return rest;
  }
}
