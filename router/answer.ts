/**
 * Token events of one generation to pieces of text: characters whole, stop strings and stop tokens left out.
 * Knows tokens, text and log-probabilities; knows nothing of wire formats.
 */

import { Detokenizer } from "../engine/text/detokenizer.ts";
import { StopStrings } from "../engine/text/stop_strings.ts";
import type { Tokenizer } from "../engine/text/tokenizer.ts";
import type { Generation, GenerationEvent, GenerationUsage } from "./generation.ts";

/** A token as clients see it. */
export interface ShownToken {
  /** Bytes that are only part of a character show as U+FFFD. */
  readonly text: string;
  readonly bytes: readonly number[];
  /** Natural logarithm, under the model's own distribution. */
  readonly logprob: number;
}

/** A drawn token with its alternatives. */
export interface ScoredToken extends ShownToken {
  readonly top: readonly ShownToken[];
  /** Where the token begins in the answer, in UTF-16 units. */
  readonly offset: number;
}

/** What becomes of an answer: any number of `prefill`, one `text` for each token, then one `end`. */
export type AnswerPiece =
  | Extract<GenerationEvent, { kind: "prefill" }>
  /** `text` is empty while a character or a possible stop string is incomplete, and for stop tokens. */
  | { readonly kind: "text"; readonly text: string; readonly scored: ScoredToken | undefined }
  | {
    readonly kind: "end";
    /** What was still held back. */
    readonly text: string;
    readonly reason: "stop" | "length";
    /** The stop string or the listed stop token that ended it; undefined: the model itself, or the length. */
    readonly stopReason: string | number | undefined;
    readonly usage: GenerationUsage;
  };

/** How an answer is read. */
export interface AnswerOptions {
  readonly tokenizer: Tokenizer;
  /** All tokens that end the generation; they are no part of the text. */
  readonly stopTokens: readonly number[];
  /** Those of them the client listed itself. */
  readonly listedStopTokens: readonly number[];
  readonly stopStrings: readonly string[];
  readonly includeStopString: boolean;
  readonly skipSpecialTokens: boolean;
}

/**
 * Reads a generation to its end, or to a stop string, which cancels it. Ends without `end` when somebody else cancelled.
 * @throws {CodedError} what the generation throws
 */
export async function* readAnswer(generation: Generation, options: AnswerOptions): AsyncGenerator<AnswerPiece> {
  const { tokenizer, stopTokens, listedStopTokens, skipSpecialTokens } = options;
  const detokenizer = new Detokenizer(tokenizer, { skipSpecialTokens });
  const stops = new StopStrings(options.stopStrings, { includeStop: options.includeStopString });
  let tokens = 0;
  let offset = 0;
  let stopReason: number | undefined;
  for await (const event of generation) {
    if (event.kind === "prefill") {
      yield event;
    } else if (event.kind === "finished") {
      const rest = stops.push(detokenizer.flush());
      const text = rest.text + stops.flush();
      const reason = rest.stopped === undefined ? event.reason : "stop";
      yield { kind: "end", text, reason, stopReason: rest.stopped ?? stopReason, usage: event.usage };
      return;
    } else if (stopTokens.includes(event.token)) {
      tokens++;
      stopReason = listedStopTokens.includes(event.token) ? event.token : undefined;
      yield { kind: "text", text: "", scored: undefined };
    } else {
      tokens++;
      const scored = scoredToken(tokenizer, event, offset);
      const decoded = detokenizer.push(event.token);
      offset += decoded.length;
      const { text, stopped } = stops.push(decoded);
      if (stopped === undefined) {
        yield { kind: "text", text, scored };
        continue;
      }
      // The scheduler may have drawn further tokens, which nobody will see.
      const usage = { ...generation.usage(), completionTokens: tokens };
      generation.cancel();
      yield { kind: "text", text, scored };
      yield { kind: "end", text: "", reason: "stop", stopReason: stopped, usage };
      return;
    }
  }
}

function scoredToken(
  tokenizer: Tokenizer,
  { token, logprobs }: Extract<GenerationEvent, { kind: "token" }>,
  offset: number,
): ScoredToken | undefined {
  if (logprobs === undefined) return undefined;
  const shown = (id: number, logprob: number): ShownToken => ({
    text: tokenizer.tokenText(id),
    bytes: [...tokenizer.tokenBytes(id)],
    // JSON has no infinity; this is what OpenAI sends in its place.
    logprob: Math.max(logprob, -9999),
  });
  return {
    ...shown(token, logprobs.logprob),
    top: logprobs.top.map((other) => shown(other.token, other.logprob)),
    offset,
  };
}
