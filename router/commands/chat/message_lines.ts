/** Lines into messages. Knows text; knows nothing of where lines come from. */

import { ChatError } from "./chat_client.ts";

const FENCE = '"""';

/** Characters of one message; servers refuse bodies that are longer. */
const MAX_CHARS = 32 * 2 ** 20;

/**
 * A line is a message, unless it ends with a backslash, which the next line replaces, or opens a block with three quotes,
 * which ends with three quotes.
 */
export class MessageLines {
  readonly #lines: string[] = [];
  #isBlock = false;
  #chars = 0;

  /** Whether a message has begun that is not whole. */
  get isOpen(): boolean {
    return this.#lines.length > 0 || this.#isBlock;
  }

  /**
   * Takes the next line.
   * @returns the message, once it is whole
   * @throws {ChatError} `too_long`; what came of the message is dropped
   */
  push(line: string): string | undefined {
    this.#chars += line.length + 1;
    if (this.#chars > MAX_CHARS) {
      this.#whole();
      throw new ChatError("too_long", `Cannot take the message: it has over ${MAX_CHARS} characters`);
    }
    if (this.#isBlock) return this.#inBlock(line);
    if (this.#lines.length === 0 && line.trimStart().startsWith(FENCE)) {
      this.#isBlock = true;
      const rest = line.trimStart().slice(FENCE.length);
      return rest === "" ? undefined : this.#inBlock(rest);
    }
    const isContinued = line.endsWith("\\");
    this.#lines.push(isContinued ? line.slice(0, -1) : line);
    return isContinued ? undefined : this.#whole();
  }

  /** No line follows. @returns what is there of a message */
  end(): string | undefined {
    return this.isOpen ? this.#whole() : undefined;
  }

  #inBlock(line: string): string | undefined {
    const end = line.trimEnd();
    if (!end.endsWith(FENCE)) {
      this.#lines.push(line);
      return undefined;
    }
    const last = end.slice(0, -FENCE.length);
    if (last !== "") this.#lines.push(last);
    return this.#whole();
  }

  #whole(): string {
    this.#isBlock = false;
    this.#chars = 0;
    return this.#lines.splice(0).join("\n");
  }
}
