/**
 * What endpoints do differently on the wire; all else about serving them is the same. An interface only: `choice_stream.ts`
 * (chat and text completions), `responses.ts` and `messages.ts` implement it, `generation_route.ts` uses it.
 */

import type { AnswerPart } from "../answer/answer_part.ts";
import type { AnswerPiece, ScoredToken } from "./answer.ts";
import type { describeError } from "../errors.ts";
import type { Operation } from "./request_observer.ts";
import type { AnswerUsage } from "./usage.ts";
import type { PreparedGeneration } from "../text/prepare.ts";
import type { TextResults } from "../text/text_jobs.ts";

/** How a choice ended. */
export interface ChoiceEnd {
  readonly reason: "stop" | "length";
  readonly stopReason: string | number | undefined;
}

/** A choice, whole. */
export interface WholeChoice extends ChoiceEnd {
  readonly index: number;
  readonly text: string;
  readonly parts: readonly AnswerPart[];
  readonly tokens: readonly number[];
  /** Undefined: no log-probabilities were asked for. */
  readonly scored: readonly ScoredToken[] | undefined;
}

/** The same in the whole answer and in all its chunks. */
export interface AnswerHead {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
  readonly fingerprint: string;
}

/** What an answer is an answer to. */
export interface AnswerContext {
  readonly head: AnswerHead;
  readonly prepared: PreparedGeneration;
  /** Of the request until now. */
  readonly usage: () => AnswerUsage;
}

/** Writes one streamed answer: frames of server-sent events, line breaks included. */
export interface StreamWriter {
  /** Before anything else. */
  start(): Iterable<string>;
  prefill(piece: Extract<AnswerPiece, { kind: "prefill" }>, elapsedMs: number): Iterable<string>;
  piece(index: number, piece: Exclude<AnswerPiece, { kind: "prefill" }>): Iterable<string>;
  /** After the last piece of all choices. */
  end(): Iterable<string>;
  failed(error: ReturnType<typeof describeError>): Iterable<string>;
}

/** One endpoint. */
export interface WireFormat {
  readonly operation: Operation;
  /** The text job that prepares its requests. */
  readonly job: { [Kind in keyof TextResults]: TextResults[Kind] extends PreparedGeneration ? Kind : never }[
    keyof TextResults
  ];
  readonly idPrefix: string;
  whole(context: AnswerContext, choices: readonly WholeChoice[]): unknown;
  stream(context: AnswerContext): StreamWriter;
}
