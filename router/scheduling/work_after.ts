/**
 * What a sequence does after work that still runs, where that is certain without its result: a row, or the correction that is due
 * then. The token of the newest row has not left the GPU by then.
 */

import { countsTokens } from "../../engine/logits/penalties.ts";
import { attentionAt, type AttentionPolicy } from "./attention_policy.ts";
import type { Correction } from "./correction.ts";
import type { GenerationRequest } from "./generation.ts";
import type { SequenceTokens } from "./sequence_tokens.ts";
import type { Work } from "./work.ts";

/** What counts of a sequence. */
export interface SequenceOutlook {
  readonly request: GenerationRequest;
  readonly policy: AttentionPolicy;
  readonly correction: Correction;
  readonly tokens: SequenceTokens;
  /** Watermark of what was computed with full attention. */
  readonly exact: number;
  /** Whether its draws have masks. */
  readonly isMasked: boolean;
  /** Whether a correction was cut for time, and goes on before anything else. */
  readonly isCut: boolean;
}

/** @returns undefined when the result of that work must be known first */
export function workAfter(sequence: SequenceOutlook, work: Work): Work | undefined {
  const { tokens, correction, isMasked, isCut } = sequence;
  const { audits, withholdsTokens } = correction;
  if (work.kind === "prefill" || work.kind === "rebuild" || isCut) return undefined;
  if (work.from + work.rows !== tokens.length) return undefined;
  if (audits && (!withholdsTokens || isMasked || tokens.endsWithStopDraft)) return undefined;
  return work.kind === "correction" ? afterCorrection(sequence) : afterRow(sequence, work);
}

function afterRow(sequence: SequenceOutlook, { kind, from }: Work): Work | undefined {
  const { tokens, correction, policy } = sequence;
  const next = attentionAt(policy, from + 1);
  const exact = kind === "dense" && from <= sequence.exact ? from + 1 : sequence.exact;
  const corrected: Work = { kind: "correction", from: exact, rows: from + 2 - exact };
  // The last token is drawn where drafts are verified.
  if (tokens.endsWithin(correction.withholdsTokens ? 2 : 1)) {
    return correction.withholdsTokens && next === "sparse" && canRunAhead(sequence) ? corrected : undefined;
  }
  if (next === "dense" || !correction.isDue(corrected.rows, from + 2)) return { kind: next, from: from + 1, rows: 1 };
  return canRunAhead(sequence) ? corrected : undefined;
}

/** Masks of a correction's draws, and counts of the tokens between them, depend on every one of its tokens. */
function canRunAhead({ correction: { audits }, isMasked, request: { sampling } }: SequenceOutlook): boolean {
  return !isMasked && !(audits && countsTokens(sampling));
}

/** A verification may overrule drafts, and then what follows is thrown away: it is expected to agree, or waited for. */
function afterCorrection(sequence: SequenceOutlook): Work | undefined {
  const { tokens, correction, policy } = sequence;
  const { withholdsTokens } = correction;
  if (!canRunAhead(sequence) || tokens.endsWithin(withholdsTokens ? 2 : 1)) return undefined;
  if (withholdsTokens && !correction.mostlyAgrees) return undefined;
  const kind = attentionAt(policy, tokens.length);
  if (kind === "sparse" && correction.isDue(1, tokens.length + 1)) return undefined;
  return { kind, from: tokens.length, rows: 1 };
}
