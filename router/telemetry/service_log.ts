/**
 * What a service says about itself: one line for each finished request, and now and then a sentence.
 * Knows formats; never gets a prompt or an answer.
 */

import type { LogFormat } from "../config.ts";
import type { RequestRecord } from "./request_record.ts";

/** Where log lines come from and go to. */
export class ServiceLog {
  readonly #format: LogFormat;
  readonly #write: (line: string) => void;

  constructor(format: LogFormat, write: (line: string) => void) {
    this.#format = format;
    this.#write = write;
  }

  /** Something worth knowing, in a sentence. */
  say(message: string): void {
    const time = new Date().toISOString();
    this.#write(this.#format === "json" ? JSON.stringify({ time, message }) : `${time} ${message}`);
  }

  /** A request has ended. */
  request(record: RequestRecord): void {
    const entry = entryOf(record);
    this.#write(this.#format === "json" ? JSON.stringify(entry) : textOf(entry));
  }
}

/** Plain data; a field that does not apply is absent. */
interface Entry {
  readonly time: string;
  readonly id: string;
  readonly operation: string;
  readonly model?: string;
  /** What the client was told, if it still was there. */
  readonly status?: number;
  /** Finish reasons, an error code, or the phase in which the client left. */
  readonly outcome: string;
  readonly promptTokens?: number;
  readonly cachedTokens?: number;
  readonly completionTokens?: number;
  readonly attention?: string;
  readonly firstTokenMs?: number;
  readonly totalMs: number;
}

function entryOf(record: RequestRecord): Entry {
  const { id, operation, accepted, receivedAt, firstTokenAt, endedAt } = record;
  return {
    time: new Date(endedAt).toISOString(),
    id,
    operation,
    ...(accepted === undefined ? {} : { model: accepted.model, promptTokens: accepted.promptTokens }),
    ...outcomeOf(record),
    ...(firstTokenAt === undefined ? {} : { firstTokenMs: Math.round(firstTokenAt - receivedAt) }),
    totalMs: Math.round(endedAt - receivedAt),
  };
}

function outcomeOf({ outcome, accepted }: RequestRecord): Pick<Entry, "outcome"> & Partial<Entry> {
  switch (outcome.kind) {
    case "finished":
      return {
        status: 200,
        outcome: [...new Set(outcome.reasons)].join(","),
        cachedTokens: outcome.usage.cachedTokens,
        completionTokens: outcome.usage.completionTokens,
        attention: outcome.usage.attention.mode,
      };
    case "failed":
      // A stream that fails has sent its 200 long ago.
      return { status: accepted?.stream ? 200 : outcome.status, outcome: outcome.code };
    case "disconnected":
      return { outcome: `left while ${outcome.phase}` };
  }
}

function textOf(entry: Entry): string {
  const { promptTokens: prompt, cachedTokens: cached, completionTokens: completion } = entry;
  const cost = prompt === undefined
    ? []
    : [`${prompt}${cached === undefined ? "" : ` (${cached} cached)`} prompt tokens`];
  const answer = completion === undefined ? [] : [`${completion} tokens ${entry.attention}`];
  const first = entry.firstTokenMs === undefined ? [] : [`first after ${entry.firstTokenMs} ms`];
  const parts = [...cost, ...answer, ...first, `${entry.totalMs} ms`];
  const { time, id, model = "-", status = "-", outcome } = entry;
  return `${time} ${id} ${model} ${status} ${outcome}: ${parts.join(", ")}`;
}
