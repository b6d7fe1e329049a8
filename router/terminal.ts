/**
 * What a command writes to: lines for people on stdout and stderr, and a progress bar where there is a terminal.
 * Knows file descriptors; knows nothing of what is written.
 */

/** Where a command writes; faked by tests. */
export interface Terminal {
  /** Whether a person watches: only then may a line be overwritten. */
  readonly interactive: boolean;
  /** Characters that a line may have. */
  readonly columns: number;
  /** Text on stdout, as it is: an answer that streams. */
  write(text: string): void;
  /** A line on stdout. */
  line(text: string): void;
  /** A line on stderr. */
  error(text: string): void;
  /**
   * How far something has come: a bar that redraws itself on a terminal, a plain line per quarter elsewhere.
   * @param fraction 0 to 1; 1 ends the bar
   */
  progress(label: string, fraction: number): void;
}

/** Of a line that goes into a file or a pipe. */
const FILE_COLUMNS = 100;
const BAR_CELLS = 30;
const CLEAR_LINE = "\r\x1b[K";

/** One of a process's two outputs. */
export interface Output {
  isTerminal(): boolean;
  /** @returns how many bytes were taken, maybe not all */
  writeSync(bytes: Uint8Array): number;
}

/** The process's own stdout and stderr. */
export function processTerminal(): Terminal {
  const columns = Deno.stdout.isTerminal() ? Deno.consoleSize().columns : FILE_COLUMNS;
  return terminalOn(Deno.stdout, Deno.stderr, columns);
}

/** A terminal on two outputs; interactive only if both are. */
export function terminalOn(out: Output, err: Output, columns = FILE_COLUMNS): Terminal {
  return new OutputTerminal(out, err, columns);
}

class OutputTerminal implements Terminal {
  readonly interactive: boolean;
  readonly columns: number;
  readonly #out: Output;
  readonly #err: Output;
  readonly #quarters = new Map<string, number>();
  #barShown = false;

  constructor(out: Output, err: Output, columns: number) {
    this.#out = out;
    this.#err = err;
    this.columns = columns;
    this.interactive = out.isTerminal() && err.isTerminal();
  }

  write(text: string): void {
    this.#clearBar();
    writeAll(this.#out, text);
  }

  line(text: string): void {
    this.write(`${text}\n`);
  }

  error(text: string): void {
    this.#clearBar();
    writeAll(this.#err, `${text}\n`);
  }

  progress(label: string, fraction: number): void {
    if (!this.interactive) return this.#progressLine(label, fraction);
    writeAll(this.#err, CLEAR_LINE + (fraction < 1 ? progressBar(label, fraction) : ""));
    this.#barShown = fraction < 1;
  }

  #progressLine(label: string, fraction: number): void {
    const quarter = Math.floor(fraction * 4);
    const before = this.#quarters.get(label) ?? 0;
    this.#quarters.set(label, quarter);
    // Fewer than before: it has begun again.
    if (quarter <= before) return;
    writeAll(this.#err, `${label}: ${quarter * 25} %\n`);
  }

  #clearBar(): void {
    if (this.#barShown) writeAll(this.#err, CLEAR_LINE);
    this.#barShown = false;
  }
}

/** One line without its end, e.g. `Loading weights  ███████·····················  25 %`. */
export function progressBar(label: string, fraction: number): string {
  const full = Math.round(Math.min(1, Math.max(0, fraction)) * BAR_CELLS);
  return `${label}  ${"█".repeat(full)}${"·".repeat(BAR_CELLS - full)}  ${Math.floor(fraction * 100)} %`;
}

function writeAll(output: Output, text: string): void {
  let bytes: Uint8Array = new TextEncoder().encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(output.writeSync(bytes));
}
