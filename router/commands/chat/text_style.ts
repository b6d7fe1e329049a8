/**
 * Markdown on a terminal, as it comes: headings, strong text and code stand out, and nothing of the text is changed, so that
 * a marker that is none does no harm. Knows characters and escape sequences; knows nothing of terminals.
 */

/** Escape sequences of highlighted text. */
export const STYLES = { plain: "\x1b[0m", strong: "\x1b[1m", dim: "\x1b[2m", code: "\x1b[36m" } as const;

/** Characters at the start of a line that decide what it is. */
const HEAD_CHARS = 8;

/** Styles one text, which comes in pieces. */
export class TextStyle {
  /** Of the line that is being read, the first characters. */
  #head = "";
  #before = "";
  #isFenced = false;
  #isHeading = false;
  #isStrong = false;
  #isCode = false;

  /** The next piece, with escape sequences. */
  push(text: string): string {
    return Array.from(text, (character) => this.#take(character)).join("");
  }

  /** Whatever was open ends. */
  end(): string {
    const isPlain = !this.#isFenced && !this.#isHeading && !this.#isStrong && !this.#isCode;
    this.#isFenced = false;
    this.#endLine();
    return isPlain ? "" : STYLES.plain;
  }

  #take(character: string): string {
    if (character === "\n") return this.#break();
    if (this.#head.length < HEAD_CHARS) this.#head += character;
    const isTwice = character === "*" && this.#before === "*";
    this.#before = isTwice ? "" : character;
    if (this.#isFenced || this.#head.startsWith("```")) return character;
    if (character === " " && /^#{1,6} $/.test(this.#head)) {
      this.#isHeading = true;
      return character + STYLES.strong;
    }
    if (character === "`") return this.#tick();
    // It was one tick at the start of a line, not the first of three.
    if (this.#head.length === 2 && this.#head.startsWith("`") && !this.#isCode) {
      this.#isCode = true;
      return STYLES.code + character;
    }
    if (!isTwice || this.#isCode) return character;
    this.#isStrong = !this.#isStrong;
    return character + (this.#isStrong ? STYLES.strong : this.#resumed());
  }

  #tick(): string {
    if (/^`+$/.test(this.#head)) return "`";
    this.#isCode = !this.#isCode;
    return "`" + (this.#isCode ? STYLES.code : this.#resumed());
  }

  /** A marker that was not closed within its line was none. */
  #break(): string {
    const isFence = this.#head.trimStart().startsWith("```");
    const wasStyled = this.#isHeading || this.#isStrong || this.#isCode;
    this.#endLine();
    if (!isFence) return (wasStyled ? STYLES.plain : "") + "\n";
    this.#isFenced = !this.#isFenced;
    return (this.#isFenced ? "" : STYLES.plain) + "\n" + (this.#isFenced ? STYLES.code : "");
  }

  #endLine(): void {
    this.#head = this.#before = "";
    this.#isHeading = this.#isStrong = this.#isCode = false;
  }

  /** Plain, or what holds for the whole line. */
  #resumed(): string {
    return STYLES.plain + (this.#isHeading || this.#isStrong ? STYLES.strong : "");
  }
}
