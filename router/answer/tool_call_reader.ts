/**
 * Separates tool calls from the rest of an answer, wherever the text is cut. One reader for three ways of writing calls:
 * Hermes and Qwen (`<tool_call>{…}</tool_call>`), Llama 3 (the answer is `{…}`), Mistral (`[TOOL_CALLS][{…}, {…}]`, or
 * `[TOOL_CALLS]name[ARGS]{…}`). Knows text; what turns out to be no call is content.
 */

import type { AnswerForm, AnswerPart } from "./answer_part.ts";
import { CallScanner } from "./call_scanner.ts";
import { splitAt } from "./held_text.ts";
import { TOOL_FORMATS, type ToolFormat } from "./tool_formats.ts";

type Tools = NonNullable<AnswerForm["tools"]>;

/** Reads one answer. */
export class ToolCallReader {
  readonly #format: ToolFormat;
  readonly #names: ReadonlySet<string>;
  #state: "text" | "between" | "call" = "text";
  #held = "";
  #scanner = new CallScanner();
  /** The text before the call that is being read, in case it turns out to be none. */
  #opening = "";
  #calls = 0;
  /** Of the call that is being read. */
  #hasArguments = false;
  #atStart = true;

  constructor({ format, names }: Tools) {
    this.#format = TOOL_FORMATS[format];
    this.#names = new Set(names);
  }

  /** Takes the next piece. @returns what is certain now */
  push(piece: string): AnswerPart[] {
    const parts: AnswerPart[] = [];
    let text = this.#held + piece;
    this.#held = "";
    while (text !== "") {
      const before = this.#state;
      const length = text.length;
      text = this.#state === "text"
        ? this.#said(text, parts)
        : this.#state === "between"
        ? this.#between(text, parts)
        : this.#call(text, parts);
      if (text.length === length && this.#state === before) {
        this.#held = text;
        break;
      }
    }
    return joined(parts);
  }

  /** Ends the answer. @returns what was held; a call that is not complete stays as it is */
  flush(): AnswerPart[] {
    const isUnnamed = this.#state === "call" && this.#scanner.name === undefined;
    const isSpace = this.#calls > 0 && this.#held.trim() === "";
    const rest = this.#state === "between"
      ? (this.#calls > 0 ? "" : this.#opening + this.#held)
      : isSpace
      ? ""
      : this.#held;
    const text = (isUnnamed ? this.#opening + this.#scanner.text : "") + rest;
    this.#held = "";
    this.#state = "text";
    return text === "" ? [] : [{ kind: "content", text }];
  }

  /** @returns the rest */
  #said(text: string, parts: AnswerPart[]): string {
    const { trigger, bareStart } = this.#format;
    if (this.#atStart && bareStart) {
      const trimmed = text.trimStart();
      if (trimmed === "") return text;
      if (trimmed.startsWith("{")) {
        this.#begin(text.slice(0, text.length - trimmed.length));
        return trimmed;
      }
    }
    const { before, held, after } = splitAt(text, trigger);
    // White space before a call is not part of the content.
    const said = before.trimEnd();
    if (said !== "") {
      parts.push({ kind: "content", text: said });
      this.#atStart = false;
    }
    const space = before.slice(said.length);
    if (after === undefined) return space + held;
    this.#opening = space + trigger;
    this.#state = "between";
    return after;
  }

  /** After the trigger, or after a call: another one, or text. */
  #between(text: string, parts: AnswerPart[]): string {
    const { trigger } = this.#format;
    const trimmed = text.replace(this.#format.separator, "");
    if (trimmed === "") return text;
    if (trimmed.startsWith("{")) {
      this.#begin(this.#opening + text.slice(0, text.length - trimmed.length));
      return trimmed;
    }
    const named = this.#format.named?.exec(trimmed);
    if (named) {
      parts.push({ kind: "call", index: this.#calls, name: named[1] ?? "" });
      this.#scanner = new CallScanner(named[1]);
      this.#state = "call";
      return trimmed.slice(named[0].length);
    }
    if (this.#format.named !== undefined && /^[\w.-]*(\[[A-Z]*)?$/.test(trimmed)) return text;
    const closing = this.#format.closings.find((one) => trimmed.startsWith(one));
    if (closing !== undefined) {
      this.#state = "text";
      return trimmed.slice(closing.length);
    }
    if (trimmed.startsWith(trigger)) return trimmed.slice(trigger.length);
    if ([trigger, ...this.#format.closings].some((one) => one.startsWith(trimmed))) return text;
    const skipped = text.length - trimmed.length + 1;
    parts.push({ kind: "content", text: this.#opening + text.slice(0, skipped) });
    this.#state = "text";
    return text.slice(skipped);
  }

  #begin(opening: string): void {
    this.#opening = opening;
    this.#scanner = new CallScanner();
    this.#state = "call";
    this.#atStart = false;
  }

  #call(text: string, parts: AnswerPart[]): string {
    for (let i = 0; i < text.length; i++) {
      try {
        const { name, argumentText, isDone } = this.#scanner.push(text.charAt(i));
        if (name !== undefined) {
          if (this.#format.bareStart && !this.#names.has(name)) throw new SyntaxError("no tool has this name");
          parts.push({ kind: "call", index: this.#calls, name });
        }
        if (argumentText !== "") {
          parts.push({ kind: "arguments", index: this.#calls, text: argumentText });
          this.#hasArguments = true;
        }
        if (!isDone) continue;
        // Models leave them out where a function takes none; clients parse them as JSON.
        if (!this.#hasArguments) parts.push({ kind: "arguments", index: this.#calls, text: "{}" });
        this.#hasArguments = false;
        this.#calls++;
        this.#opening = "";
        this.#state = "between";
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        parts.push({ kind: "content", text: this.#opening + this.#scanner.text });
        this.#hasArguments = false;
        this.#state = "text";
      }
      return text.slice(i + 1);
    }
    return "";
  }
}

/** Neighbours of one kind become one. */
function joined(parts: readonly AnswerPart[]): AnswerPart[] {
  const result: AnswerPart[] = [];
  for (const part of parts) {
    const last = result.at(-1);
    const fits = last !== undefined && last.kind === part.kind && "text" in last && "text" in part &&
      (last.kind !== "arguments" || part.kind !== "arguments" || last.index === part.index);
    if (fits) result[result.length - 1] = { ...last, text: last.text + part.text };
    else result.push(part);
  }
  return result;
}
