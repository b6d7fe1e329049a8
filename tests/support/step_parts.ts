/** Pieces of steps with everything filled in, for tests that change one field. */

import { GREEDY } from "../../engine/evaluation/hand_session.ts";
import type { SequenceOpening, Span, Step } from "../../engine/span.ts";

/** A sequence without a prefix. */
export function open(sequence: number, changes: Partial<SequenceOpening> = {}): SequenceOpening {
  return {
    sequence,
    sampling: GREEDY,
    sparse: { budget: 16, heads: "kv_head" },
    promptTokens: 0,
    pageOffset: 0,
    prefixPages: new Uint32Array(0),
    prefixTokens: new Uint32Array(0),
    audited: false,
    ...changes,
  };
}

/** A prefill span of `rows` rows with tokens 1, 2, 3 … that takes no pages. */
export function prefill(sequence: number, from: number, rows: number, changes: Partial<Span> = {}): Span {
  return { ...base(sequence, from, rows), kind: "prefill", ...changes } as Span;
}

/** The same as a dense decode span. */
export function decode(sequence: number, from: number, rows: number, changes: Partial<Span> = {}): Span {
  return { ...base(sequence, from, rows), kind: "decode", attention: "dense", ...changes } as Span;
}

/** A step of which the given parts are not empty. */
export function step(parts: Partial<Step>): Step {
  return { index: 1, open: [], release: [], spans: [], deadlineMs: 60_000, ...parts };
}

function base(sequence: number, from: number, rows: number) {
  const tokens = Uint32Array.from({ length: rows }, (_, i) => i + 1);
  return { sequence, from, tokens, logits: "none", newPages: new Uint32Array(0) } as const;
}
