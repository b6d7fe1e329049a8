/**
 * Whether a step fits the state that it would be applied to. Looks at the whole step before anything happens, so that a
 * refused step has changed nothing. Knows what a step may contain; changes no state and knows nothing of the GPU.
 */

import { EngineError } from "./errors.ts";
import { MIN_BUDGET } from "./layer_plan.ts";
import { maskWords } from "../kernels/logits/mask_logits.ts";
import { countsTokens } from "./logits/penalties.ts";
import type { PageMap } from "./page_map.ts";
import {
  attendsSparsely,
  drawnRowsOf,
  PAGE_TOKENS,
  type SequenceId,
  type SequenceOpening,
  type Span,
  type Step,
} from "./span.ts";

/** What a step is checked against. */
export interface StepBounds {
  /** The longest context, in positions. */
  readonly maxPositions: number;
  readonly vocabSize: number;
  /** Which pages there are, and on which worker each of a sequence's must lie. */
  readonly map: PageMap;
  /** Pages that one sequence can have. */
  readonly maxPages: number;
  /** Sequences that can be open at once; those that a step releases count until it is over. */
  readonly slots: number;
  /** Whether rows may be sparse. */
  readonly calibrated: boolean;
  /** Sequences for which the step before drew, whose next row can be `sampled`. */
  readonly drawn: { has(sequence: SequenceId): boolean };
}

/** What the check needs of an open sequence. */
export interface OpenSequence {
  readonly physicalPages: { readonly length: number };
  readonly open: Pick<SequenceOpening, "pageOffset" | "sampling">;
  /** As long as the positions that were ever written. */
  readonly tokens: { readonly length: number };
}

/**
 * Checks a step.
 * @param sequences those open before the step
 * @throws {EngineError} `invalid_step`; `kv_exhausted` when it opens more sequences than there is room for
 */
export function checkStep(
  { open, release, spans }: Step,
  sequences: ReadonlyMap<SequenceId, OpenSequence>,
  bounds: StepBounds,
): void {
  const leaving = new Set(release);
  for (const [i, sequence] of release.entries()) {
    if (!sequences.has(sequence)) throw refusal(`release sequence ${sequence}: it is not open`);
    if (release.indexOf(sequence) !== i) throw refusal(`release sequence ${sequence}: it is released twice`);
  }
  const known = new Map(sequences);
  for (const sequence of open) {
    if (known.has(sequence.sequence)) throw refusal(`open sequence ${sequence.sequence}: it is open already`);
    known.set(sequence.sequence, checkOpening(sequence, bounds));
  }
  if (known.size > bounds.slots) {
    throw new EngineError("kv_exhausted", `Cannot open ${open.length} sequences: ${known.size} exceed ${bounds.slots}`);
  }
  const met = new Set<SequenceId>();
  for (const span of spans) {
    const state = known.get(span.sequence);
    if (state === undefined) throw refusedSpan(span, "it is not open");
    if (leaving.has(span.sequence)) throw refusedSpan(span, "the same step releases it");
    if (met.has(span.sequence)) throw refusedSpan(span, "it has two spans in one step");
    met.add(span.sequence);
    checkRows(span, bounds);
    if (span.sampled) checkSampled(span, state, bounds);
    checkPlace(span, state, bounds);
  }
}

function checkOpening(open: SequenceOpening, bounds: StepBounds): OpenSequence {
  const { sequence, sparse, prefixPages, prefixTokens } = open;
  const refuse = (why: string) => refusal(`open sequence ${sequence}: ${why}`);
  const why = faultOfPages(prefixPages, { physicalPages: [], open }, bounds);
  if (why !== undefined) throw refuse(why);
  if (sparse.budget < MIN_BUDGET) throw refuse(`a budget of ${sparse.budget} is below ${MIN_BUDGET}`);
  const { coverage = 1 } = sparse;
  if (!(coverage > 0 && coverage <= 1)) throw refuse(`a coverage of ${coverage} is not above 0 and at most 1`);
  const length = prefixPages.length * PAGE_TOKENS;
  if (prefixTokens.length !== 0 && prefixTokens.length !== length) {
    throw refuse(`${prefixTokens.length} prefix tokens are not the ${length} of its pages`);
  }
  return { physicalPages: prefixPages, open, tokens: { length } };
}

/** Checks what concerns a span alone. */
function checkRows(span: Span, { vocabSize, calibrated }: StepBounds): void {
  const { tokens, next, logits } = span;
  if (tokens.length === 0) throw refusedSpan(span, "it has no rows");
  const token = tokens.find((id) => id >= vocabSize) ?? (next !== undefined && next >= vocabSize ? next : undefined);
  if (token !== undefined) throw refusedSpan(span, `token ${token} is not below the vocabulary's ${vocabSize}`);
  if (next !== undefined && logits !== "all") {
    throw refusedSpan(span, `its next token is given, but logits are "${logits}", not "all"`);
  }
  const masked = drawnRowsOf(span) * maskWords(vocabSize);
  if (span.masks !== undefined && span.masks.length !== masked) {
    throw refusedSpan(span, `its masks have ${span.masks.length} words, not ${masked}`);
  }
  if (span.masksFollow && (span.masks !== undefined || drawnRowsOf(span) !== 1)) {
    throw refusedSpan(span, `its mask follows, but ${span.masks ? "it has masks" : "it does not draw one token"}`);
  }
  if (logits === "audit" && (span.kind === "prefill" || attendsSparsely(span))) {
    throw refusedSpan(span, "it is an audit, but no dense decode span");
  }
  if (!attendsSparsely(span)) return;
  if (!calibrated) throw refusedSpan(span, "it is sparse, but the model has no calibration");
  if (tokens.length !== 1) throw refusedSpan(span, `it is sparse and has ${tokens.length} rows, not one`);
}

/** Whether its last token can come from the step before. */
function checkSampled(span: Span, { open: { sampling } }: OpenSequence, { drawn }: StepBounds): void {
  if (!drawn.has(span.sequence)) throw refusedSpan(span, "its token is that of the step before, which drew none");
  if (span.kind !== "decode") throw refusedSpan(span, "its token is that of the step before, but it does not decode");
  if (span.logits === "all") throw refusedSpan(span, "its token is that of the step before, and would be scored");
  if (drawnRowsOf(span) > 1 && countsTokens(sampling)) {
    throw refusedSpan(
      span,
      "its token is that of the step before, but penalties of its audit count tokens between rows",
    );
  }
}

/** Checks where its rows go: positions and pages. */
function checkPlace(span: Span, state: OpenSequence, bounds: StepBounds): void {
  const { from, newPages } = span;
  const end = from + span.tokens.length;
  if (end > bounds.maxPositions) {
    throw refusedSpan(span, `its end ${end} exceeds the context of ${bounds.maxPositions}`);
  }
  if (from > state.tokens.length) {
    throw refusedSpan(span, `its start ${from} is beyond the ${state.tokens.length} positions that are there`);
  }
  const why = faultOfPages(newPages, state, bounds);
  if (why !== undefined) throw refusedSpan(span, why);
  const capacity = (state.physicalPages.length + newPages.length) * PAGE_TOKENS;
  if (end > capacity) throw refusedSpan(span, `its end ${end} exceeds the ${capacity} positions of its pages`);
}

function faultOfPages(
  pages: Uint32Array,
  { physicalPages: { length: present }, open: { pageOffset } }: {
    readonly physicalPages: { readonly length: number };
    readonly open: Pick<SequenceOpening, "pageOffset">;
  },
  { map, ...bounds }: StepBounds,
): string | undefined {
  const high = pages.find((page) => page >= map.pages);
  if (high !== undefined) return `page ${high} is not below ${map.pages}`;
  const astray = pages.find((page, i) => !map.isOn(map.owner(pageOffset, present + i), page));
  if (astray !== undefined) return `page ${astray} is not on the worker that owns its place`;
  const total = present + pages.length;
  return total > bounds.maxPages ? `${total} pages exceed ${bounds.maxPages}` : undefined;
}

function refusedSpan({ sequence }: Span, why: string): EngineError {
  return refusal(`run a span of sequence ${sequence}: ${why}`);
}

function refusal(what: string): EngineError {
  return new EngineError("invalid_step", `Cannot ${what}`);
}
