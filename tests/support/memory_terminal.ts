/** A terminal that keeps what it is told. */

import type { Terminal } from "../../router/terminal.ts";

/** No one watches it: `interactive` is false. */
export class MemoryTerminal implements Terminal {
  readonly interactive = false;
  readonly columns = 100;
  out = "";
  readonly errors: string[] = [];
  readonly progressed: (readonly [label: string, fraction: number])[] = [];

  write(text: string): void {
    this.out += text;
  }

  line(text: string): void {
    this.out += `${text}\n`;
  }

  error(text: string): void {
    this.errors.push(text);
  }

  progress(label: string, fraction: number): void {
    this.progressed.push([label, fraction]);
  }
}
