/**
 * Keys on their way from a terminal to the line editor: those typed while an answer is written wait for the next prompt,
 * and the line breaks of what is pasted do not end the line. Knows characters; knows nothing of lines or terminals.
 */

import { PassThrough } from "node:stream";

import { splitAt } from "../../answer/held_text.ts";

/** Stands for a line break within a line that is being edited. */
export const LINE_BREAK = "↵";

/** What terminals send around pasted text once they were asked to. */
const PASTE = { begin: "\x1b[200~", end: "\x1b[201~" } as const;

const CTRL_C = "\x03";

/** Characters that wait; of what is typed beyond, nothing is kept. */
const MAX_HELD = 1 << 20;

/** See the top of this file. */
export class KeyGate {
  /** What gets through. */
  readonly keys: PassThrough = new PassThrough();
  readonly #onInterrupt: () => void;
  #isOpen = false;
  #isPasting = false;
  /** May become the marker of a paste. */
  #partial = "";
  #held = "";

  /** @param onInterrupt called for each Ctrl-C while it is closed; an open one passes it on as a key */
  constructor(onInterrupt: () => void) {
    this.#onInterrupt = onInterrupt;
  }

  /** Takes what was typed. */
  type(text: string): void {
    this.#held = (this.#held + this.#unpasted(text)).slice(0, MAX_HELD);
    if (this.#isOpen) return this.#release();
    const interrupt = this.#held.lastIndexOf(CTRL_C);
    if (interrupt < 0) return;
    // What was typed before it was not meant for the next prompt.
    this.#held = this.#held.slice(interrupt + 1);
    this.#onInterrupt();
  }

  /** Lets keys through, up to the one that ends the line. */
  open(): void {
    this.#isOpen = true;
    this.#release();
  }

  /** Nothing more is typed. */
  end(): void {
    this.#isOpen = true;
    this.#release();
    this.keys.end();
  }

  #release(): void {
    const end = this.#held.search(/[\r\n]/);
    const passed = end < 0 ? this.#held : this.#held.slice(0, end + 1);
    this.#held = this.#held.slice(passed.length);
    if (end >= 0) this.#isOpen = false;
    if (passed !== "") this.keys.write(passed);
  }

  /** Without the markers of pastes, and without line breaks in what was pasted. */
  #unpasted(text: string): string {
    let [rest, plain] = [this.#partial + text, ""];
    for (;;) {
      const { before, held, after } = splitAt(rest, this.#isPasting ? PASTE.end : PASTE.begin);
      plain += this.#isPasting ? before.replace(/\r\n?|\n/g, LINE_BREAK) : before;
      this.#partial = held;
      if (after === undefined) return plain;
      this.#isPasting = !this.#isPasting;
      rest = after;
    }
  }
}
