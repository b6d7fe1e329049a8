/**
 * The parts of an answer as items with a beginning and an end: text, reasoning and calls, one after the other. What the
 * Responses and the Messages API have in common. Knows parts; knows nothing of either wire format.
 */

import type { AnswerPart } from "../answer/answer_part.ts";
import { newCallId } from "./call_ids.ts";

/** One item, as far as it has come. */
export interface OutputItem {
  readonly kind: "content" | "reasoning" | "call";
  readonly index: number;
  /** Made here; used for calls, and for the ids of other items. */
  readonly callId: string;
  /** Of a call. */
  readonly name: string;
  /** Of a call: its arguments. */
  readonly text: string;
}

/** What a piece of an answer does to its items, in order. */
export type ItemEvent =
  | { readonly kind: "begin"; readonly item: OutputItem }
  | { readonly kind: "delta"; readonly item: OutputItem; readonly text: string }
  | { readonly kind: "end"; readonly item: OutputItem };

/** Cuts one answer into items. */
export class OutputItems {
  readonly #items: OutputItem[] = [];
  #isOpen = false;

  /** All items so far. */
  get items(): readonly OutputItem[] {
    return this.#items;
  }

  /** Takes the next parts. */
  *push(parts: readonly AnswerPart[]): Generator<ItemEvent> {
    for (const part of parts) {
      const kind = part.kind === "arguments" ? "call" : part.kind;
      if (part.kind === "call" || !this.#isOpen || this.#items.at(-1)?.kind !== kind) {
        yield* this.end();
        yield { kind: "begin", item: this.#begin(kind, part.kind === "call" ? part.name : "") };
      }
      if (part.kind !== "call") yield { kind: "delta", item: this.#extend(part.text), text: part.text };
    }
  }

  /** Ends the item that is open. */
  *end(): Generator<ItemEvent> {
    const item = this.#items.at(-1);
    if (!this.#isOpen || item === undefined) return;
    this.#isOpen = false;
    yield { kind: "end", item };
  }

  #begin(kind: OutputItem["kind"], name: string): OutputItem {
    const item = { kind, index: this.#items.length, callId: newCallId(), name, text: "" };
    this.#items.push(item);
    this.#isOpen = true;
    return item;
  }

  #extend(text: string): OutputItem {
    const last = this.#items.length - 1;
    const item = this.#items[last];
    if (item === undefined) throw new RangeError("Cannot extend an item: none has begun");
    return this.#items[last] = { ...item, text: item.text + text };
  }
}

/** The items of a whole answer. */
export function itemsOf(parts: readonly AnswerPart[]): readonly OutputItem[] {
  const items = new OutputItems();
  // Events are of interest to streams alone.
  Array.from(items.push(parts));
  return items.items;
}
