/**
 * Answers made of choices: what chat and text completions have in common on the wire. Knows envelopes and chunks; the
 * choices themselves are the endpoints' own.
 */

import type { AnswerPiece, ScoredToken } from "./answer.ts";
import { SSE_DONE, sseComment, sseData } from "./sse.ts";
import { usageBody } from "./usage.ts";
import type { AnswerContext, AnswerHead, ChoiceEnd, StreamWriter, WholeChoice, WireFormat } from "./wire_format.ts";

type TextPiece = Exclude<AnswerPiece, { kind: "prefill" }>;

/** One entry of `choices`. */
export type ChoiceBody = { readonly index: number } & Readonly<Record<string, unknown>>;

/** The choices of one endpoint. */
export interface ChoiceFormat extends Pick<WireFormat, "operation" | "job" | "idPrefix"> {
  /** `object` of a whole answer and of a chunk. */
  readonly object: { readonly whole: string; readonly chunk: string };
  whole(choice: WholeChoice, echo: string | undefined): ChoiceBody;
  /** Starts a streamed choice. */
  open(index: number, echo: string | undefined): ChoiceWriter;
}

/** The chunks of one streamed choice. */
export interface ChoiceWriter {
  /** Sent with the first token, before its text; undefined: nothing. */
  readonly opening: ChoiceBody | undefined;
  /** For a token that adds no text, where its id is asked for. */
  readonly silent: ChoiceBody;
  piece(piece: TextPiece, scored: ScoredToken | undefined): readonly ChoiceBody[];
  closing(end: ChoiceEnd): ChoiceBody;
}

/** Makes an endpoint from its choices. */
export function choiceEndpoint(format: ChoiceFormat): WireFormat {
  return {
    operation: format.operation,
    job: format.job,
    idPrefix: format.idPrefix,
    whole: ({ head, prepared, usage }, choices) => ({
      ...headBody(head),
      object: format.object.whole,
      choices: choices.map((choice) => ({
        ...format.whole(choice, prepared.prompts[Math.floor(choice.index / prepared.n)]?.echo),
        ...(prepared.returnTokenIds && { token_ids: choice.tokens }),
      })),
      usage: usageBody(usage()),
      ...(prepared.returnTokenIds && { prompt_token_ids: [...prepared.prompts[0]?.tokens ?? []] }),
    }),
    stream: (context) => new ChoiceStream(format, context),
  };
}

class ChoiceStream implements StreamWriter {
  readonly #format: ChoiceFormat;
  readonly #context: AnswerContext;
  readonly #writers = new Map<number, ChoiceWriter>();

  constructor(format: ChoiceFormat, context: AnswerContext) {
    this.#format = format;
    this.#context = context;
  }

  *start(): Iterable<string> {}

  *prefill({ total, cached, processed }: Extract<AnswerPiece, { kind: "prefill" }>, elapsedMs: number) {
    yield sseComment(`prefill ${JSON.stringify({ total, cached, processed })}`);
    if (!this.#context.prepared.returnProgress) return;
    // llama.cpp's form, without a choice: clients take the first choice they see for the first token.
    yield this.#chunk([], { prompt_progress: { total, cache: cached, processed, time_ms: Math.round(elapsedMs) } });
  }

  *piece(index: number, piece: TextPiece): Iterable<string> {
    const { prepared } = this.#context;
    let writer = this.#writers.get(index);
    if (writer === undefined) {
      writer = this.#format.open(index, prepared.prompts[Math.floor(index / prepared.n)]?.echo);
      this.#writers.set(index, writer);
      if (writer.opening !== undefined) yield this.#chunk([writer.opening], this.#promptTokens(index));
    }
    const bodies = writer.piece(piece, piece.kind === "text" ? piece.scored : undefined);
    const tokens = prepared.returnTokenIds && piece.kind === "text" ? [piece.token] : undefined;
    const withTokens = tokens === undefined
      ? bodies
      : bodies.length === 0
      ? [{ ...writer.silent, token_ids: tokens }]
      : bodies.map((body, i) => (i === 0 ? { ...body, token_ids: tokens } : body));
    for (const body of withTokens) yield this.#chunk([body]);
    if (piece.kind === "end") yield this.#chunk([writer.closing(piece)]);
  }

  *end(): Iterable<string> {
    if (this.#context.prepared.includeUsage) yield this.#chunk([], { usage: usageBody(this.#context.usage()) });
    yield SSE_DONE;
  }

  *failed({ body }: Parameters<StreamWriter["failed"]>[0]): Iterable<string> {
    yield sseData(body);
  }

  #promptTokens(index: number): Readonly<Record<string, unknown>> {
    const { prepared } = this.#context;
    if (!prepared.returnTokenIds) return {};
    return { prompt_token_ids: [...prepared.prompts[Math.floor(index / prepared.n)]?.tokens ?? []] };
  }

  #chunk(choices: readonly unknown[], extra: Readonly<Record<string, unknown>> = {}): string {
    const { head, prepared, usage } = this.#context;
    const isContinuous = prepared.continuousUsage && choices.length > 0;
    const asked = prepared.includeUsage ? { usage: isContinuous ? usageBody(usage()) : null } : {};
    return sseData({ ...headBody(head), object: this.#format.object.chunk, choices, ...asked, ...extra });
  }
}

function headBody({ id, created, model, fingerprint }: AnswerHead) {
  return { id, created, model, system_fingerprint: fingerprint };
}
