/**
 * Turns the token events of one generation into pieces of text: characters whole, stop strings and stop tokens left out.
 * Knows tokens, text and log-probabilities; knows nothing of wire formats.
 */

import type { AnswerForm, AnswerPart } from "../answer/answer_part.ts";
import { AnswerReader } from "../answer/answer_reader.ts";
import { Detokenizer } from "../../engine/text/detokenizer.ts";
import { StopStrings } from "../../engine/text/stop_strings.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
import type { Generation, GenerationEvent, GenerationUsage } from "../scheduling/generation.ts";

/** A token as clients see it. */
export interface ShownToken {
  readonly id: number;
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

/** What an answer consists of: any number of `prefill`, one `text` for each token, then one `end`. */
export type AnswerPiece =
  | Extract<GenerationEvent, { kind: "prefill" }>
  /** `text` is empty while a character or a possible stop string is incomplete, and for stop tokens. */
  | {
    readonly kind: "text";
    readonly token: number;
    readonly text: string;
    /** What the text is made of, as far as that is certain. */
    readonly parts: readonly AnswerPart[];
    readonly scored: ScoredToken | undefined;
    /** Of the tokens so far, those of reasoning, its markers among them. */
    readonly reasoningTokens: number;
  }
  | {
    readonly kind: "end";
    /** What was still held back. */
    readonly text: string;
    readonly parts: readonly AnswerPart[];
    readonly reason: "stop" | "length";
    /** The stop string or the listed stop token that ended it; undefined: the model itself, or the length. */
    readonly stopReason: string | number | undefined;
    readonly usage: GenerationUsage;
    readonly reasoningTokens: number;
  };

type TokenEvent = Extract<GenerationEvent, { kind: "token" }>;

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
  readonly form: AnswerForm;
  /** Special tokens that count as text: they mark parts of the answer. */
  readonly markers: readonly string[];
}

/**
 * Reads a generation to its end, or to a stop string, which cancels it. Ends without `end` when it was cancelled elsewhere.
 * @throws {CodedError} what the generation throws
 */
export async function* readAnswer(generation: Generation, options: AnswerOptions): AsyncGenerator<AnswerPiece> {
  const writer = new AnswerWriter(options);
  for await (const event of generation) {
    if (event.kind === "prefill") {
      yield event;
    } else if (event.kind === "finished") {
      yield writer.finish(event);
      return;
    } else {
      const { piece, stopped } = writer.take(event);
      if (stopped === undefined) {
        yield piece;
        continue;
      }
      // The scheduler may have drawn further tokens, which are not shown.
      const usage = { ...generation.usage(), completionTokens: writer.tokens };
      const { reasoningTokens } = writer;
      generation.cancel();
      yield piece;
      yield {
        kind: "end",
        text: "",
        parts: writer.rest(),
        reason: "stop",
        stopReason: stopped,
        usage,
        reasoningTokens,
      };
      return;
    }
  }
}

/** Turns the tokens of one answer into its text. */
class AnswerWriter {
  readonly #options: AnswerOptions;
  readonly #detokenizer: Detokenizer;
  readonly #stops: StopStrings;
  readonly #reader: AnswerReader;
  #tokens = 0;
  #reasoningTokens = 0;
  #offset = 0;
  #stopReason: number | undefined;

  constructor(options: AnswerOptions) {
    this.#options = options;
    this.#detokenizer = new Detokenizer(options.tokenizer, {
      skipSpecialTokens: options.skipSpecialTokens,
      markers: options.markers,
    });
    this.#reader = new AnswerReader(options.form);
    this.#stops = new StopStrings(options.stopStrings, { includeStop: options.includeStopString });
  }

  /** Tokens taken so far. */
  get tokens(): number {
    return this.#tokens;
  }

  /** Those of them that were reasoning. */
  get reasoningTokens(): number {
    return this.#reader.hasReasoned ? this.#reasoningTokens : 0;
  }

  /** What a token adds, and the stop string it completed. */
  take(event: TokenEvent): { readonly piece: AnswerPiece; readonly stopped: string | undefined } {
    const { tokenizer, stopTokens, listedStopTokens } = this.#options;
    this.#tokens++;
    if (this.#reader.mayReason) this.#reasoningTokens = this.#tokens;
    const base = { kind: "text", token: event.token } as const;
    if (stopTokens.includes(event.token)) {
      if (listedStopTokens.includes(event.token)) this.#stopReason = event.token;
      const { reasoningTokens } = this;
      return { piece: { ...base, text: "", parts: [], scored: undefined, reasoningTokens }, stopped: undefined };
    }
    const scored = scoredToken(tokenizer, event, this.#offset);
    const decoded = this.#detokenizer.push(event.token);
    this.#offset += decoded.length;
    const { text, stopped } = this.#stops.push(decoded);
    const parts = this.#reader.push(text);
    return { piece: { ...base, text, parts, scored, reasoningTokens: this.reasoningTokens }, stopped };
  }

  /** Parts that were not certain. */
  rest(): readonly AnswerPart[] {
    return this.#reader.flush();
  }

  /** The end, with what was held back. */
  finish({ reason, usage }: Extract<GenerationEvent, { kind: "finished" }>): AnswerPiece {
    const { text: certain, stopped } = this.#stops.push(this.#detokenizer.flush());
    const text = certain + this.#stops.flush();
    const parts = [...this.#reader.push(text), ...this.#reader.flush()];
    return {
      kind: "end",
      text,
      parts,
      reasoningTokens: this.reasoningTokens,
      reason: stopped === undefined ? reason : "stop",
      stopReason: stopped ?? this.#stopReason,
      usage,
    };
  }
}

function scoredToken(
  tokenizer: Tokenizer,
  { token, logprobs }: TokenEvent,
  offset: number,
): ScoredToken | undefined {
  if (logprobs === undefined) return undefined;
  const shown = (id: number, logprob: number): ShownToken => ({
    id,
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
