/**
 * Which sequences of a step are whole: what their rows see, and what they append, has a place on every worker, own pages or copies.
 * One worker then computes a batch of such rows alone, all layers of it, and sends their keys and values to the others: rows that
 * decode are the lead's, long prompts are dealt chunk by chunk. What finds no room for copies is computed by all, or by the owners
 * of its pages. Every worker sees the same steps and has the same account of copies, so all decide alike. Knows spans and copies;
 * knows nothing of tensors.
 */

import type { CopiedPiece } from "../kv/page_copies.ts";
import type { Replicas } from "../kv/replicas.ts";
import type { SequenceState } from "../kv/sequences.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { replicaPagesOf } from "../replica_plan.ts";
import { attendsSparsely, type SequenceId, type Span } from "../span.ts";

/** A span, and the state of its sequence. */
interface SpanState {
  readonly span: Span;
  readonly piece: CopiedPiece;
  readonly state: SequenceState;
}

/**
 * Makes room for copies of the rows of a step, as far as there is any: for all of its prompts or for none.
 * @param sequences must hold every sequence of the spans
 */
export function wholeSequences(
  { replicas, config }: Pick<LoadedModel, "replicas" | "config">,
  spans: readonly Span[],
  sequences: ReadonlyMap<SequenceId, SequenceState>,
): ReadonlySet<SequenceId> {
  const all = spans.flatMap((span) => withState(span, sequences));
  if (replicas?.copies === undefined || config.localLayers !== undefined || !reserve(replicas, all)) return new Set();
  const { copies } = replicas;
  const staying = all.map(({ piece }) => piece);
  const isWhole = ({ state: { open }, piece }: SpanState) =>
    copies.extend([piece], staying) && replicas.of(open.sequence) === undefined;
  const decoded = all.filter(({ span }) => span.kind === "decode").filter(isWhole);
  const prompts = all.filter(({ span }) => span.kind === "prefill");
  const fit = prompts.length > 0 && copies.extend(prompts.map(({ piece }) => piece), staying);
  return new Set([...decoded, ...(fit ? prompts : [])].map(({ span }) => span.sequence));
}

function withState(span: Span, sequences: ReadonlyMap<SequenceId, SequenceState>): SpanState[] {
  const state = sequences.get(span.sequence);
  if (state === undefined) return [];
  return [{ span, state, piece: { sequence: state, from: span.from, rows: span.tokens.length } }];
}

/**
 * Makes room for the replicas of sparse rows first, so that nothing which is decided here gives way to them.
 * @returns whether there is enough for all of the step at a time
 */
function reserve(replicas: Replicas, all: readonly SpanState[]): boolean {
  let pages = 0;
  const states = all.flatMap(({ span, state }) => {
    const room = attendsSparsely(span) ? replicas.roomFor(state.open) : undefined;
    if (room === undefined) return [];
    pages += replicaPagesOf(room);
    return [state];
  });
  if (pages > replicas.pages) return false;
  replicas.reserve(states);
  return true;
}
