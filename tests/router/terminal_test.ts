/** What reaches stdout and stderr, watched by a person or not. */

import assert from "node:assert/strict";
import { type Output, progressBar, terminalOn } from "../../router/terminal.ts";

/** Takes at most three bytes at a time. */
class SlowOutput implements Output {
  readonly #bytes: number[] = [];
  readonly #isTerminal: boolean;

  constructor(isTerminal: boolean) {
    this.#isTerminal = isTerminal;
  }

  get text(): string {
    return new TextDecoder().decode(Uint8Array.from(this.#bytes));
  }

  isTerminal(): boolean {
    return this.#isTerminal;
  }

  writeSync(bytes: Uint8Array): number {
    this.#bytes.push(...bytes.subarray(0, 3));
    return Math.min(bytes.length, 3);
  }
}

function open(watched: { out: boolean; err: boolean }) {
  const [out, err] = [new SlowOutput(watched.out), new SlowOutput(watched.err)];
  return { out, err, terminal: terminalOn(out, err) };
}

Deno.test("terminalOn() writes whole texts though an output takes a part at a time", () => {
  const { out, err, terminal } = open({ out: false, err: false });
  terminal.write("Grüße ");
  terminal.line("an alle");
  terminal.error("Cannot go on");
  assert.equal(out.text, "Grüße an alle\n");
  assert.equal(err.text, "Cannot go on\n");
});

Deno.test("Terminal.progress() is a plain line per quarter where no one watches, and begins again", () => {
  const { err, terminal } = open({ out: false, err: true });
  assert.ok(!terminal.interactive);
  for (const fraction of [0, 0.1, 0.3, 0.31, 0.9, 1, 1, 0, 0.5]) terminal.progress("Loading", fraction);
  assert.equal(err.text, "Loading: 25 %\nLoading: 75 %\nLoading: 100 %\nLoading: 50 %\n");
});

Deno.test("Terminal.progress() redraws one bar on a terminal and clears it before anything else is said", () => {
  const { out, err, terminal } = open({ out: true, err: true });
  terminal.progress("Loading", 0.5);
  terminal.line("ready");
  terminal.progress("Loading", 1);
  assert.equal(err.text, `\r\x1b[K${progressBar("Loading", 0.5)}\r\x1b[K\r\x1b[K`);
  assert.equal(out.text, "ready\n");
});

Deno.test("progressBar() stays within its cells", () => {
  assert.match(progressBar("L", 0), /^L {2}·{30} {2}0 %$/);
  assert.match(progressBar("L", 0.999), /^L {2}█{30} {2}99 %$/);
  assert.match(progressBar("L", 7), /^L {2}█{30} /);
});
