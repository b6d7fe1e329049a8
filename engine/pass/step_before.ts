/**
 * What a step of a group takes from the one before it, which may still run. Rows of whole sequences follow it closely, as those of a
 * worker alone do: the lead has their tokens on its GPU. Where workers exchange between layers, or compute rows whose tokens only
 * the lead has, that one must be over first, and the lead sends its tokens. Knows spans and tokens; knows nothing of layers.
 */

import type { SequenceState } from "../kv/sequences.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { SequenceId, Span, Step } from "../span.ts";

/** What is known of the step before, and of this one. */
interface Joining {
  readonly whole: ReadonlySet<SequenceId>;
  readonly sequences: ReadonlyMap<SequenceId, SequenceState>;
  beforeDone(): Promise<void>;
}

/** Where tokens that the lead sends to its peers belong among the exchanges of a step. */
const POINT = { batch: 0, layer: 0 };

/**
 * Waits for the step before, where this one cannot follow it closely.
 * @returns the spans, with the tokens that every worker must know
 * @throws what the step before has failed with
 */
export async function joinBefore(
  { share: { map }, exchange }: LoadedModel,
  { index, spans }: Step,
  { whole, sequences, beforeDone }: Joining,
): Promise<readonly Span[]> {
  const isWhole = ({ kind, sequence }: Span) => kind === "decode" && whole.has(sequence);
  if (map.workers === 1 || spans.every(isWhole)) return spans;
  await beforeDone();
  const carried = spans.filter((span) => span.sampled === true && !isWhole(span));
  if (carried.length === 0) return spans;
  const own = Uint32Array.from(carried, (span) => sequences.get(span.sequence)?.tokens[lastOf(span)] ?? 0);
  const drawn = await exchange.tokens({ step: index, ...POINT }, own);
  const known = new Map(carried.map((span, i) => [span, drawn[i] ?? 0]));
  return spans.map((span) => withToken(span, known.get(span), sequences));
}

function lastOf({ from, tokens }: Span): number {
  return from + tokens.length - 1;
}

function withToken(
  span: Span,
  token: number | undefined,
  sequences: ReadonlyMap<SequenceId, SequenceState>,
): Span {
  if (token === undefined) return span;
  const state = sequences.get(span.sequence);
  if (state !== undefined) state.tokens[lastOf(span)] = token;
  const tokens = Uint32Array.from(span.tokens);
  tokens[tokens.length - 1] = token;
  const { sampled: _, ...known } = span;
  return { ...known, tokens };
}
