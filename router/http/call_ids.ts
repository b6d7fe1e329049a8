/** Tool calls of a whole answer, and their names on the wire. Knows parts of answers only. */

import type { AnswerPart } from "../answer/answer_part.ts";

/** A complete call. */
export interface WholeCall {
  readonly id: string;
  readonly name: string;
  /** JSON text, as the model wrote it. */
  readonly arguments: string;
}

/** Nine letters and digits: Mistral's templates accept nothing else. */
const ID_CHARS = 9;

/** An id that no other call has. */
export function newCallId(): string {
  return crypto.randomUUID().replaceAll("-", "").slice(0, ID_CHARS);
}

/** The calls among the parts, in order. */
export function wholeCalls(parts: readonly AnswerPart[]): WholeCall[] {
  return parts.flatMap((call) =>
    call.kind !== "call" ? [] : [{
      id: newCallId(),
      name: call.name,
      arguments: parts.map((part) => (part.kind === "arguments" && part.index === call.index ? part.text : "")).join(
        "",
      ),
    }]
  );
}
