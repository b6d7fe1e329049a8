/**
 * How often each token occurred in each sequence whose penalties ask for it: counts that stay on the GPU, so that neither the
 * host walks over a context nor a drawn token has to leave the GPU before it counts. Owns their memory, and knows which
 * tokens are counted: rows that go back, or follow other tokens than were counted, undo what differs.
 */

import { EngineError } from "../errors.ts";
import { IN_PROMPT } from "../../kernels/logits/adjust_logits.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { SequenceState } from "../kv/sequences.ts";
import { PAGE_TOKENS, type SequenceId, type Span, type SpanResult } from "../span.ts";
import { CountPlaces } from "./count_places.ts";

/** Where more tokens differ from those counted, all are counted again: every row looks through the differences. */
const MAX_CHANGES = 128;

/** One token more or less than the counts hold. */
export interface CountChange {
  readonly token: number;
  readonly change: 1 | -1;
}

/** What the counts lack at some rows of a sequence. */
export interface CountedRows {
  /** Row of the counts. */
  readonly place: number;
  /** All that the last row needs; each row before it needs one less. */
  readonly changes: readonly CountChange[];
}

/** Consecutive rows of a sequence that are drawn after. */
export interface RowsToCount {
  readonly sequence: Pick<SequenceState, "open" | "tokens">;
  readonly position: number;
  readonly rows: number;
  /** Whether the step counts the token that it draws after the last of them too. */
  readonly countsDrawn: boolean;
}

/** A sequence that is counted. */
interface Counted {
  readonly promptTokens: number;
  /** Positions of the prompt that are counted. */
  prompt: number;
  /** Tokens of the output as they were counted; undefined: drawn, and not known yet. */
  output: (number | undefined)[];
  /** By step: which of the output it draws. */
  readonly pending: Map<number, number>;
  /** Position from which on tokens may be others than those counted. */
  changedFrom: number;
}

/** See the top of this file. */
export class TokenCounts {
  readonly #vocabulary: number;
  readonly #places: CountPlaces;
  readonly #sequences = new Map<SequenceId, Counted>();

  /** @param maxBytes of GPU memory; @default as `CountPlaces` */
  constructor(commands: Commands, vocabulary: number, maxBytes?: number) {
    this.#vocabulary = vocabulary;
    this.#places = new CountPlaces(commands, {
      vocabulary,
      maxBytes,
      onLost: (sequence) => this.#sequences.delete(sequence),
    });
  }

  /** u32 [places, vocabulary], as `adjust_logits.ts` reads them; undefined before the first sequence is counted. */
  get counts(): Tensor | undefined {
    return this.#places.tensor;
  }

  /** Spans bring tokens, which need not be those that were counted at their positions. */
  rewrite(spans: readonly Pick<Span, "sequence" | "from">[]): void {
    for (const { sequence, from } of spans) {
      const counted = this.#sequences.get(sequence);
      if (counted !== undefined) counted.changedFrom = Math.min(counted.changedFrom, from);
    }
  }

  /**
   * Says what the counts lack at rows of a sequence, of which the step must apply all. Uploads them where there are none, or
   * none that are nearly right.
   * @param step its index
   * @throws {EngineError} `invalid_step` for several rows within the prompt
   * @throws {GpuError} `out_of_gpu_memory` when the sequences of one step are too many to be counted
   */
  prepare(rows: RowsToCount, step: number): CountedRows {
    const { sequence: { open: { sequence, promptTokens }, tokens }, position } = rows;
    if (rows.rows > 1 && position + 1 < promptTokens) {
      throw new EngineError(
        "invalid_step",
        `Cannot draw after row ${position} of sequence ${sequence} and later ones: ` +
          `its penalties count one token a row, and the prompt has ${promptTokens}`,
      );
    }
    const known = this.#sequences.get(sequence);
    const undone = known && undo(known, rows);
    const counted = known === undefined || undone === undefined ? this.#count(rows, step) : known;
    const changes: CountChange[] = (undone ?? []).map((token) => ({ token, change: -1 }));
    for (let i = counted.output.length; i < position + rows.rows - promptTokens; i++) {
      const token = tokenAt(tokens, promptTokens + i);
      counted.output.push(token);
      changes.push({ token, change: 1 });
    }
    counted.changedFrom = Infinity;
    if (rows.countsDrawn) counted.pending.set(step, counted.output.push(undefined) - 1);
    return { place: this.#places.use(sequence, step), changes };
  }

  /** Remembers what a step drew. */
  learn(
    { index, spans }: { readonly index: number; readonly spans: readonly Pick<Span, "sequence">[] },
    results: readonly Pick<SpanResult, "token" | "audit">[],
  ): void {
    for (const [i, { sequence }] of spans.entries()) {
      const counted = this.#sequences.get(sequence);
      const at = counted?.pending.get(index);
      if (counted === undefined || at === undefined) continue;
      counted.pending.delete(index);
      counted.output[at] = results[i]?.token ?? results[i]?.audit?.tokens.at(-1);
    }
  }

  /** Drops the counts of a sequence: it is over, or a step has failed that was to change them. */
  forget(sequence: SequenceId): void {
    this.#sequences.delete(sequence);
    this.#places.release(sequence);
  }

  /** Drops everything and frees the memory; it can be used again. */
  close(): void {
    this.#sequences.clear();
    this.#places.close();
  }

  /** Counts all that the first row follows, on the host: once for each admission of a sequence. */
  #count({ sequence: { open, tokens }, position }: RowsToCount, step: number): Counted {
    const { sequence, promptTokens, prefixPages, prefixTokens } = open;
    // Tokens of a prefix are sent only if a penalty counts them.
    const unknown = prefixTokens.length === 0 ? prefixPages.length * PAGE_TOKENS : 0;
    const words = new Uint32Array(this.#vocabulary);
    const prompt = Math.min(promptTokens, position + 1);
    for (let i = 0; i < prompt; i++) {
      const token = tokens[i];
      if (token !== undefined) words[token] = IN_PROMPT;
    }
    const output: (number | undefined)[] = [];
    for (let i = prompt; i <= position; i++) {
      const token = i < unknown ? tokens[i] : tokenAt(tokens, i);
      output.push(token);
      if (token !== undefined) words[token] = (words[token] ?? 0) + 1;
    }
    this.#places.write(sequence, step, words);
    const counted = { promptTokens, prompt, output, pending: new Map<number, number>(), changedFrom: Infinity };
    this.#sequences.set(sequence, counted);
    return counted;
  }
}

/**
 * Takes back what was counted beyond the tokens before a row, or in place of others.
 * @returns the tokens taken back; undefined: all must be counted again
 */
function undo(counted: Counted, { sequence: { tokens }, position, rows }: RowsToCount): number[] | undefined {
  const { promptTokens, prompt, output, changedFrom } = counted;
  if (prompt < promptTokens || changedFrom < promptTokens || position + 1 < promptTokens) return undefined;
  const end = Math.min(output.length, position + 1 - promptTokens);
  let same = Math.min(changedFrom - promptTokens, end);
  while (same < end && isSame(output[same], tokens[promptTokens + same])) same++;
  const undone = output.slice(same);
  const known = undone.filter((token) => token !== undefined);
  const changes = undone.length + position + rows - promptTokens - same;
  if (known.length < undone.length || changes > MAX_CHANGES) return undefined;
  output.length = same;
  return known;
}

/** A token that a step needs to know. */
function tokenAt(tokens: readonly (number | undefined)[], position: number): number {
  const token = tokens[position];
  if (token === undefined) throw new RangeError(`Cannot count position ${position}: its token is not known`);
  return token;
}

/** A sampled row follows the token that was drawn, and counted, before it: neither need be known. */
function isSame(counted: number | undefined, token: number | undefined): boolean {
  return token === undefined || token === counted;
}
