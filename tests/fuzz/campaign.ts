/** Fires shots, a few at a time, and gathers what is wrong. Knows neither sockets nor who answers. */

import { judge, type Received } from "./judge.ts";
import type { Shot, Shots } from "./shots.ts";

/** How shots are fired. */
export interface CampaignOptions {
  readonly count: number;
  /** Index of the first shot. @default 0 */
  readonly first?: number;
  /** @default 8 */
  readonly concurrency?: number;
  /** An answer that takes longer is a complaint. @default 60 s */
  readonly answerMs?: number;
  /** Called after each answer. */
  readonly onAnswer?: (done: number, complaints: number) => void;
}

/** A shot that was not answered as it should be. */
export interface Finding {
  readonly shot: Shot;
  readonly complaints: readonly string[];
  readonly answer: Received | undefined;
}

/** What came of a campaign. */
export interface Report {
  /** Answers by path and status. */
  readonly answers: ReadonlyMap<string, number>;
  readonly findings: readonly Finding[];
  readonly slowestMs: number;
}

/** Sends one shot and reads its answer; must end when the signal is aborted. */
export type Send = (shot: Shot, signal: AbortSignal) => Promise<Received>;

/** Findings kept with their bodies. */
const MAX_FINDINGS = 100;

/** Fires `count` shots. */
export async function campaign(shots: Shots, send: Send, options: CampaignOptions): Promise<Report> {
  const { count, first = 0, concurrency = 8, answerMs = 60_000, onAnswer = () => {} } = options;
  const answers = new Map<string, number>();
  const findings: Finding[] = [];
  let next = 0;
  let done = 0;
  let slowestMs = 0;
  const fireAll = async () => {
    while (next < count && findings.length < MAX_FINDINGS) {
      const shot = shots.at(first + next++);
      const startMs = performance.now();
      const { answer, complaints } = await fire(shot, send, answerMs);
      slowestMs = Math.max(slowestMs, performance.now() - startMs);
      const kind = `${shot.path} ${answer?.status ?? "none"}`;
      answers.set(kind, (answers.get(kind) ?? 0) + 1);
      if (complaints.length > 0) findings.push({ shot, complaints, answer });
      onAnswer(++done, findings.length);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, fireAll));
  return { answers, findings, slowestMs };
}

async function fire(shot: Shot, send: Send, answerMs: number): Promise<Omit<Finding, "shot">> {
  const signal = AbortSignal.timeout(answerMs);
  try {
    const answer = await send(shot, signal);
    return { answer, complaints: judge(shot, answer) };
  } catch (error) {
    const why = signal.aborted ? `no answer within ${answerMs} ms` : `no answer: ${String(error).slice(0, 200)}`;
    return { answer: undefined, complaints: [why] };
  }
}
