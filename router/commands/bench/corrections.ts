/**
 * What corrections cost and what they leave of the gain over dense decoding: whole cycles of sparse steps and one dense
 * span over their rows. Knows steps and strides; `break_even.ts` says what a given agreement makes of a round.
 */

import type { Span } from "../../../engine/span.ts";
import { bestLossless, breakEvenStride, type LosslessFigures } from "./break_even.ts";
import { denseSpanFlop } from "./flop.ts";
import { at } from "../../../kernels/at.ts";
import type { Session } from "../../../engine/evaluation/hand_session.ts";
import { mean } from "../../../engine/evaluation/mean.ts";
import { drawnRow, type MeasuredSequence, type StepMs, stepMs, stepOf, type TimedStep, timedSteps } from "./steps.ts";

/** A cycle: all its rows but the last decoded sparsely, then all of them in one dense span. */
export interface CycleFigures {
  /** Rows of the dense span. */
  readonly stride: number;
  /** That were timed, behind one that was not. */
  readonly cycles: number;
  /** Mean of whole cycles: the round trips of all their steps. */
  readonly cycleMs: number;
  /** Of the dense span. */
  readonly correction: StepMs;
  /** Operations of the dense span; see `denseSpanFlop`. */
  readonly flop: number;
  /** Operations over the span's round trip. */
  readonly teraflopPerSecond: number;
}

/** Corrections at one context. */
export interface CorrectionFigures {
  /** A cycle gives as many tokens as it has rows. */
  readonly refresh: readonly (CycleFigures & { readonly msPerToken: number })[];
  /** See `breakEvenStride`; null: at no measured stride. */
  readonly refreshBeatsDenseFrom: number | null;
  /** A cycle drafts and verifies; how many tokens it gives depends on the agreement. */
  readonly rounds: readonly CycleFigures[];
  /** At each given agreement. */
  readonly lossless: readonly LosslessFigures[];
}

/** What to measure. */
export interface CorrectionOptions {
  /** Strides of refresh. */
  readonly corrections: readonly number[];
  /** Agreements at which lossless rounds are judged. */
  readonly agreements: readonly number[];
  /** Timed cycles of each stride, at the least; short ones are timed more often. */
  readonly cycles: number;
}

/** Strides of lossless rounds: fine where the best ones lie. */
const ROUND_STRIDES = [2, 3, 4, 6, 8, 12, 16] as const;

/** Rows that are timed at each stride: a mean over fewer steps says little. */
const MIN_ROWS = 32;

/** A refresh draws one token, after its last row. */
const REFRESH_LOGITS: Span["logits"] = "last";

/** A verification draws a token after every row, and says how far the drafts were off. */
const VERIFICATION_LOGITS: Span["logits"] = "audit";

/** What every cycle begins with. */
const FIRST_TOKEN = 1;

/** Tokens after the context that the measurement writes: every cycle starts at the context again. */
export function correctionTokens({ corrections, agreements }: CorrectionOptions): number {
  return Math.max(0, ...corrections, ...(agreements.length === 0 ? [] : ROUND_STRIDES));
}

/** @param options with `denseMsPerToken`, the mean that others are compared with */
export async function measureCorrections(
  sequence: MeasuredSequence,
  options: CorrectionOptions & { readonly denseMsPerToken: number },
): Promise<CorrectionFigures> {
  const { cycles, corrections, agreements, denseMsPerToken } = options;
  const refresh: (CycleFigures & { readonly msPerToken: number })[] = [];
  const alone = { ...sequence, sessions: [sequence.session] };
  for (const stride of corrections) {
    const figures = await measureCycles(alone, { stride, cycles, logits: REFRESH_LOGITS });
    refresh.push({ ...figures, msPerToken: figures.cycleMs / stride });
  }
  const rounds = agreements.length === 0 ? [] : await measureRounds(alone, cycles);
  return {
    refresh,
    refreshBeatsDenseFrom: breakEvenStride(refresh, denseMsPerToken) ?? null,
    rounds,
    lossless: agreements.map((agreement) => bestLossless(rounds, agreement)),
  };
}

/** Sequences of one context that go through cycles together, a step for all. */
export interface MeasuredSequences extends Omit<MeasuredSequence, "session"> {
  readonly sessions: readonly Session[];
}

/** Lossless rounds of all strides. */
export async function measureRounds(sequences: MeasuredSequences, cycles: number): Promise<CycleFigures[]> {
  const rounds: CycleFigures[] = [];
  for (const stride of ROUND_STRIDES) {
    rounds.push(await measureCycles(sequences, { stride, cycles, logits: VERIFICATION_LOGITS }));
  }
  return rounds;
}

interface CycleOptions {
  readonly stride: number;
  readonly cycles: number;
  readonly logits: Span["logits"];
}

async function measureCycles(
  sequences: MeasuredSequences,
  { stride, logits, ...options }: CycleOptions,
): Promise<CycleFigures> {
  const { config, context, readBackMs, sessions } = sequences;
  const cycles = Math.max(options.cycles, Math.ceil(MIN_ROWS / stride));
  const runs: (readonly TimedStep[])[] = [];
  // A refresh overrules nothing, so the next cycle need not wait for it.
  const cyclesARun = logits === REFRESH_LOGITS ? cycles + 1 : 1;
  for (let i = 0; i <= cycles; i += cyclesARun) {
    runs.push(await runCycles(sequences, { stride, logits, cycles: cyclesARun }));
  }
  const steps = runs.flat();
  // The first may still compile or grow memory.
  const timed = Array.from({ length: cycles }, (_, i) => steps.slice((i + 1) * stride, (i + 2) * stride));
  const correction = stepMs(timed.flatMap((steps) => steps.slice(-1)), readBackMs);
  const headRows = logits === REFRESH_LOGITS ? 1 : stride;
  const flop = sessions.length * denseSpanFlop(config, { from: context, rows: stride, headRows });
  return {
    stride,
    cycles,
    cycleMs: mean(timed.map((steps) => steps.reduce((sum, { stepMs }) => sum + stepMs, 0))),
    correction,
    flop,
    teraflopPerSecond: flop / correction.step / 1e9,
  };
}

/** Drafts and corrections as the service sends them; a correction takes the newest token along, which no sparse step has cached. */
async function runCycles(
  { host, sessions, context }: MeasuredSequences,
  { stride, logits, cycles }: CycleOptions,
): Promise<readonly TimedStep[]> {
  const run = { count: cycles * stride, first: sessions.map(() => FIRST_TOKEN) };
  return await timedSteps(host, run, (i, drawn, done) =>
    stepOf(sessions, (place) => {
      const newest = drawnRow(drawn, place);
      const row = i % stride;
      if (row + 1 < stride) {
        return { kind: "decode", attention: "sparse", ...newest, from: context + row, logits: "last" };
      }
      // The step before may still run: `newest` has the token of its draft.
      const before = done.slice(Math.max(0, i - stride), i - 1).map(({ drawn }) => at(drawn, place));
      const tokens = Uint32Array.of(...(i < stride ? [FIRST_TOKEN] : []), ...before, ...newest.tokens);
      return { kind: "decode", attention: "dense", ...newest, tokens, from: context, logits };
    }));
}
