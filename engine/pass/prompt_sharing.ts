/**
 * Whether the prompts of a step are shared out by chunks: each worker computes whole batches, all layers of them, and sends the
 * keys and values of their rows to the others, who keep what they own of them and copies of the rest. Where there is no room for
 * copies, the owners of pages compute their rows of each batch, and queries travel. Every worker sees the same steps and has the
 * same account of copies, so all decide alike. Knows spans and copies; knows nothing of tensors.
 */

import type { CopiedPiece } from "../kv/page_copies.ts";
import type { SequenceState } from "../kv/sequences.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { replicaPagesOf } from "../replica_plan.ts";
import type { SequenceId, Span } from "../span.ts";
import { SPLIT_ROWS } from "./row_ranges.ts";

/** What the decision depends on besides the spans. */
type SharingParts = Pick<LoadedModel, "replicas" | "config" | "share">;

/**
 * Makes room for copies of all rows of a step's prompts, if they are to be shared out so.
 * @returns whether they are; if not, nothing was taken for them
 */
export function sharePrompts(
  { replicas, config, share: { map } }: SharingParts,
  spans: readonly Span[],
  sequences: ReadonlyMap<SequenceId, SequenceState>,
): boolean {
  const prompts = spans.filter(({ kind }) => kind === "prefill");
  const rows = prompts.reduce((sum, { tokens }) => sum + tokens.length, 0);
  if (replicas?.copies === undefined || config.localLayers !== undefined) return false;
  if (rows < SPLIT_ROWS * map.workers) return false;
  const { copies } = replicas;
  const piecesOf = (some: readonly Span[]) => some.flatMap((span) => pieceOf(span, sequences));
  const staying = piecesOf(spans);
  // What other rows of the step take comes first, so that nothing which is decided here gives way to them.
  if (!reserveReplicas(replicas, spans, sequences)) return false;
  for (const piece of piecesOf(spans.filter(({ kind }) => kind === "decode"))) copies.extend([piece], staying);
  return copies.extend(piecesOf(prompts), staying);
}

function pieceOf({ sequence, from, tokens }: Span, sequences: ReadonlyMap<SequenceId, SequenceState>): CopiedPiece[] {
  const state = sequences.get(sequence);
  return state === undefined ? [] : [{ sequence: state, from, rows: tokens.length }];
}

/** Makes room for the replicas of sparse rows. @returns whether there is enough for all of the step at a time */
function reserveReplicas(
  replicas: NonNullable<LoadedModel["replicas"]>,
  spans: readonly Span[],
  sequences: ReadonlyMap<SequenceId, SequenceState>,
): boolean {
  let pages = 0;
  const states = spans.flatMap((span) => {
    const state = sequences.get(span.sequence);
    const isSparse = span.kind === "decode" && span.attention === "sparse";
    const room = isSparse && state !== undefined ? replicas.roomFor(state.open) : undefined;
    if (state === undefined || room === undefined) return [];
    pages += replicaPagesOf(room);
    return [state];
  });
  if (pages > replicas.pages) return false;
  replicas.reserve(states);
  return true;
}
