/**
 * What chat and text completions do differently on the wire; all else about serving them is the same.
 * An interface only: `chat.ts` and `completions.ts` implement it, `generation_route.ts` uses it.
 */

import type { ScoredToken } from "./answer.ts";
import type { Operation } from "./request_observer.ts";

/** How a choice ended. */
export interface ChoiceEnd {
  readonly reason: "stop" | "length";
  readonly stopReason: string | number | undefined;
}

/** A choice, whole. */
export interface WholeChoice extends ChoiceEnd {
  readonly text: string;
  /** Undefined: no log-probabilities were asked for. */
  readonly scored: readonly ScoredToken[] | undefined;
  /** Text to put before the answer. */
  readonly echo: string | undefined;
}

/** One entry of `choices`. */
export type ChoiceBody = { readonly index: number } & Readonly<Record<string, unknown>>;

/** The shapes of one endpoint. */
export interface WireFormat {
  readonly operation: Operation;
  /** The text job that prepares its requests. */
  readonly job: "chat" | "completion";
  readonly idPrefix: string;
  /** `object` of a whole answer and of a chunk. */
  readonly object: { readonly whole: string; readonly chunk: string };
  whole(index: number, choice: WholeChoice): ChoiceBody;
  /** Sent with the choice's first token, before its text; undefined: nothing. */
  opening(index: number, echo: string | undefined): ChoiceBody | undefined;
  piece(index: number, text: string, scored: ScoredToken | undefined): ChoiceBody;
  closing(index: number, end: ChoiceEnd): ChoiceBody;
}
