/**
 * How close the predictions of one way of decoding come to those of full attention: over all, and by distance from the
 * context, where an error that accumulates would show. Arithmetic over what `corrections.ts` measured.
 */

import { at } from "../../kernels/at.ts";
import type { DecodedText } from "./corrections.ts";
import { mean } from "./mean.ts";

/** A text as a variant decoded it, beside the same text under full attention. */
export interface ComparedText {
  readonly decoded: DecodedText;
  readonly dense: DecodedText;
}

/** What rows of some positions have in common. */
export interface Agreement {
  /** Of the tokens that follow in the texts. */
  readonly perplexity: number;
  /** Share of the rows whose most likely token is that of full attention, 0 to 1. */
  readonly agreement: number;
  /** The same without the rows of corrections, which are full attention themselves; null when there are no others. */
  readonly rowAgreement: number | null;
  /** Mean absolute difference to full attention in the natural log-probability of the token that follows. */
  readonly logprobError: number;
}

/** Rows [from, to), counted from the context's end. */
export interface PositionAgreement extends Agreement {
  readonly from: number;
  readonly to: number;
}

/** Of all rows of all texts. */
export function agreementOf(texts: readonly ComparedText[]): Agreement {
  return agreementIn(texts, { from: 0, to: rowsOf(texts) });
}

/** Of all texts together, by position: parts of about equal length, fewer than `parts` when there are fewer rows. */
export function agreementByPosition(texts: readonly ComparedText[], parts: number): PositionAgreement[] {
  const rows = rowsOf(texts);
  const count = Math.min(parts, rows);
  return Array.from({ length: count }, (_, i) => {
    const range = { from: Math.floor(i * rows / count), to: Math.floor((i + 1) * rows / count) };
    return { ...range, ...agreementIn(texts, range) };
  });
}

function rowsOf(texts: readonly ComparedText[]): number {
  return Math.max(0, ...texts.map(({ decoded }) => decoded.logprob.length));
}

function agreementIn(texts: readonly ComparedText[], { from, to }: { from: number; to: number }): Agreement {
  const rows = texts.flatMap(({ decoded, dense }) => {
    const end = Math.min(to, decoded.logprob.length);
    return Array.from({ length: Math.max(0, end - from) }, (_, i) => ({
      nll: -at(decoded.logprob, from + i),
      error: Math.abs(at(decoded.logprob, from + i) - at(dense.logprob, from + i)),
      agrees: decoded.argmax[from + i] === dense.argmax[from + i] ? 1 : 0,
      corrected: decoded.corrected[from + i],
    }));
  });
  const others = rows.filter(({ corrected }) => !corrected);
  return {
    perplexity: Math.exp(mean(rows.map(({ nll }) => nll))),
    agreement: mean(rows.map(({ agrees }) => agrees)),
    rowAgreement: others.length === 0 ? null : mean(others.map(({ agrees }) => agrees)),
    logprobError: mean(rows.map(({ error }) => error)),
  };
}
