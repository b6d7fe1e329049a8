/**
 * Follows the JSON text of one tool call, `{"name": …, "arguments": {…}}`, character by character: the name as soon as it is
 * complete, the text of the arguments as it comes. Knows JSON; knows nothing of the text around the call.
 */

/** What became certain with a character. */
export interface ScannedCall {
  readonly name: string | undefined;
  /** Text of the arguments, unchanged. */
  readonly argumentText: string;
  readonly isDone: boolean;
}

const ARGUMENT_KEYS: ReadonlySet<string> = new Set(["arguments", "parameters"]);

/** Longest call that is followed; what is longer is no call. */
const MAX_HEAD_CHARS = 4096;

/** Scans one object, from its opening brace to its closing one. */
export class CallScanner {
  #name: string | undefined;
  readonly #isBare: boolean;
  /** Arguments alone follow, of a call whose name is known. */
  constructor(name?: string) {
    this.#name = name;
    this.#isBare = name !== undefined;
  }

  #depth = 0;
  #inString = false;
  #escaped = false;
  /** Of the string that is being read at the first level. */
  #string = "";
  #key: string | undefined;
  #expectsKey = false;
  /** Arguments that were read before the name. */
  #early = "";
  #head = 0;
  #text = "";

  /** All that was read. */
  get text(): string {
    return this.#text;
  }

  get name(): string | undefined {
    return this.#name;
  }

  /** @throws {SyntaxError} when this cannot be a call */
  push(character: string): ScannedCall {
    this.#text += character;
    if (this.#name === undefined && ++this.#head > MAX_HEAD_CHARS) throw new SyntaxError("no name in sight");
    const nameBefore = this.#name;
    const text = this.#argumentText(character);
    if (this.#name === undefined) {
      this.#early += text;
      return { name: undefined, argumentText: "", isDone: this.#isDone() };
    }
    const early = nameBefore === undefined ? this.#early : "";
    return {
      name: nameBefore === undefined ? this.#name : undefined,
      argumentText: early + text,
      isDone: this.#isDone(),
    };
  }

  /** The character, if it belongs to the value of the arguments. */
  #argumentText(character: string): string {
    if (this.#isBare) {
      this.#step(character);
      return character;
    }
    const isOutside = this.#depth === 1 && !this.#inString;
    if (isOutside && /[\s,}]/.test(character)) {
      this.#step(character);
      return "";
    }
    const isValue = this.#depth > 0 && !this.#expectsKey && ARGUMENT_KEYS.has(this.#key ?? "");
    this.#step(character);
    return isValue ? character : "";
  }

  #isDone(): boolean {
    if (this.#depth > 0) return false;
    if (this.#name === undefined) throw new SyntaxError("a call without a name");
    return true;
  }

  #step(character: string): void {
    if (this.#inString) return this.#stringStep(character);
    if (character === '"') {
      this.#inString = true;
      this.#string = "";
    } else if (character === "{" || character === "[") {
      if (this.#depth++ === 0) this.#expectsKey = true;
    } else if (character === "}" || character === "]") {
      this.#depth--;
    } else if (this.#depth === 1 && character === ":") {
      this.#expectsKey = false;
    } else if (this.#depth === 1 && character === ",") {
      this.#expectsKey = true;
      this.#key = undefined;
    }
  }

  #stringStep(character: string): void {
    if (this.#escaped) this.#escaped = false;
    else if (character === "\\") this.#escaped = true;
    else if (character === '"') {
      this.#inString = false;
      if (this.#depth === 1) this.#endString();
      return;
    }
    if (this.#depth === 1) this.#string += character;
  }

  #endString(): void {
    const value = JSON.parse(`"${this.#string}"`) as string;
    if (this.#expectsKey) this.#key = value;
    else if (this.#key === "name") this.#name = value;
  }
}
