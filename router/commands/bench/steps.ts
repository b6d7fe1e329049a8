/** Steps of one sequence with a clock, and what `bench` says of several alike. Knows spans; knows no workload. */

import type { ModelConfig } from "../../../engine/model/model_config.ts";
import type { HandSpan, Session, SessionHost } from "../../../engine/evaluation/hand_session.ts";
import { drawnToken, type SpanResult, type StepTiming } from "../../../engine/span.ts";
import { at } from "../../../kernels/at.ts";

/** A sequence whose cache holds a context. */
export interface MeasuredSequence {
  readonly host: SessionHost;
  readonly session: Session;
  readonly config: ModelConfig;
  readonly context: number;
  /** A read-back from an idle queue. */
  readonly readBackMs: number;
}

/** A step that was run. */
export interface TimedStep {
  /** Round trip as the router sees it. */
  readonly stepMs: number;
  readonly timing: StepTiming;
  /** Drawn after the last row of each span, as far as any were wanted. */
  readonly drawn: readonly number[];
}

/** Medians over steps that are alike, in milliseconds. */
export interface StepMs {
  /** Round trip as the router sees it. */
  readonly step: number;
  /** On the lead worker: planning and recording commands. */
  readonly encode: number;
  /** On the lead worker: from the last submit until the token is read, the read-back's own latency taken off. */
  readonly gpu: number;
  /** A read-back from an idle queue. */
  readonly readBack: number;
  /** What the lead worker did not see: framing, the socket, the event loops, slower peers. */
  readonly wire: number;
}

/** Runs one span as a step of its own. */
export async function timedStep(host: SessionHost, session: Session, span: HandSpan): Promise<TimedStep> {
  const step = stepOf([session], () => span);
  const start = performance.now();
  const { spans, timing } = await host.run(step);
  return { stepMs: performance.now() - start, timing, drawn: spans.flatMap(({ token }) => token ?? []) };
}

/** A span for each of several sessions. */
export type SpanOf = (place: number) => HandSpan;

/** The step in which each session runs a span. */
export function stepOf(sessions: readonly Session[], spanOf: SpanOf): Parameters<SessionHost["run"]>[0] {
  const plans = sessions.map((session, place) => session.plan(spanOf(place)));
  return { open: plans.flatMap(({ open }) => open), release: [], spans: plans.flatMap(({ spans }) => spans) };
}

/** Tokens that the rows of the step before drew; undefined: they are still on the GPU. */
export type DrawnTokens = readonly number[] | undefined;

/**
 * Runs steps that decode as the service does: each is sent while the one before runs, and takes from that one's end to its own.
 * @param planOf makes the step of that index; gets those that are done as well
 * @param first what its rows are given as drawn
 */
export async function timedSteps(
  host: SessionHost,
  { count, first }: { readonly count: number; readonly first: readonly number[] },
  planOf: (index: number, drawn: DrawnTokens, done: readonly TimedStep[]) => Parameters<SessionHost["run"]>[0],
): Promise<TimedStep[]> {
  const steps: TimedStep[] = [];
  let sinceMs = -Infinity;
  let before: Promise<readonly number[]> | undefined;
  for (let i = 0; i < count; i++) {
    const drawn = i === 0 ? first : undefined;
    const plan = planOf(i, drawn, steps);
    const start = performance.now();
    const running = host.run({ ...plan, ...(i + 1 < count && { followed: true }) }).then(
      ({ spans, timing }) => {
        const stepMs = performance.now() - Math.max(start, sinceMs);
        sinceMs = performance.now();
        const drawn = spans.map(lastDrawn);
        steps.push({ stepMs, timing, drawn });
        return drawn;
      },
    );
    await before;
    before = running;
  }
  await before;
  return steps;
}

function lastDrawn({ token, audit }: SpanResult): number {
  return drawnToken({ token: token ?? audit?.tokens.at(-1) });
}

/** A row's token: what was drawn, or a mark that it is still on the GPU. */
export function drawnRow(drawn: DrawnTokens, row: number): { readonly tokens: Uint32Array; readonly sampled?: true } {
  if (drawn === undefined) return { tokens: new Uint32Array(1), sampled: true };
  return { tokens: Uint32Array.of(at(drawn, row)) };
}

/** Decodes rows of one sequence, a step each. */
export async function timedRows(
  host: SessionHost,
  session: Session,
  rows: readonly { readonly attention: "dense" | "sparse"; readonly from: number }[],
): Promise<TimedStep[]> {
  return await timedSteps(
    host,
    { count: rows.length, first: [1] },
    (i, drawn) => session.plan({ kind: "decode", ...drawnRow(drawn, 0), logits: "last", ...at(rows, i) }),
  );
}

/** @param readBackMs latency of a read-back from an idle queue */
export function stepMs(steps: readonly TimedStep[], readBackMs: number): StepMs {
  return {
    step: median(steps.map(({ stepMs }) => stepMs)),
    encode: median(steps.map(({ timing }) => timing.encodeMs)),
    gpu: median(steps.map(({ timing }) => Math.max(0, timing.waitMs - readBackMs))),
    readBack: readBackMs,
    wire: median(steps.map(({ stepMs, timing }) => stepMs - timing.totalMs)),
  };
}

/** The same tokens at every call: they differ from one position to the next, that is all that speed depends on. */
export function randomTokens(count: number, vocabSize: number): Uint32Array {
  let state = 1;
  return Uint32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % vocabSize;
  });
}

/** The upper one of two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}
