/**
 * What a service says about itself: one line for each request, and now and then a sentence.
 * Knows formats; never gets a prompt or an answer.
 */

import type { AnsweredRequest } from "../access/access_control.ts";
import type { RequestOrigin } from "../access/request_context.ts";
import type { LogFormat } from "../config.ts";
import { describeError, type RequestError } from "../errors.ts";
import type { RequestRecord } from "./request_record.ts";

/** nginx's number for a client that closed the connection before its answer. */
const CLIENT_CLOSED = 499;

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

  /** A failure whose cause is kept from clients. */
  failure(error: unknown): void {
    this.say(error instanceof Error ? error.stack ?? error.message : String(error));
  }

  /** A request for an answer of the model has ended. */
  request(record: RequestRecord): void {
    this.#entry(entryOf(record));
  }

  /** Any other request was answered. */
  answered({ origin, status, errorCode, totalMs }: AnsweredRequest): void {
    const outcome = errorCode ?? (status < 400 ? "ok" : "refused");
    this.#entry({ time: now(), ...shownOrigin(origin), status, outcome, totalMs: Math.round(totalMs) });
  }

  /** What a client sent was no request. */
  refused(client: string, error: RequestError): void {
    this.#entry({ time: now(), client, status: describeError(error).status, outcome: error.code });
  }

  #entry(entry: Entry): void {
    this.#write(this.#format === "json" ? JSON.stringify(entry) : textOf(entry));
  }
}

/** Plain data; a field that does not apply is absent. */
interface Entry extends Partial<RequestOrigin> {
  readonly time: string;
  /** Of the answer. */
  readonly id?: string;
  readonly operation?: string;
  readonly model?: string;
  /** The error that the client got, if it was still there. */
  readonly status?: number;
  /** Finish reasons, an error code, or the phase in which the client left. */
  readonly outcome: string;
  readonly promptTokens?: number;
  readonly cachedTokens?: number;
  readonly completionTokens?: number;
  readonly attention?: string;
  readonly firstTokenMs?: number;
  readonly totalMs?: number;
}

function now(): string {
  return new Date().toISOString();
}

function shownOrigin({ key, ...origin }: RequestOrigin): Partial<RequestOrigin> {
  return key === undefined ? origin : { ...origin, key };
}

function entryOf(record: RequestRecord): Entry {
  const { id, origin, operation, accepted, receivedAt, firstTokenAt, endedAt } = record;
  return {
    time: new Date(endedAt).toISOString(),
    ...(origin === undefined ? {} : shownOrigin(origin)),
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
      return { status: accepted?.stream ? 200 : CLIENT_CLOSED, outcome: `left while ${outcome.phase}` };
  }
}

/** Time, who, what, the answer's id and model, how it ended; then what it cost. */
function textOf(entry: Entry): string {
  const { promptTokens: prompt, cachedTokens: cached, completionTokens: completion } = entry;
  const cost = prompt === undefined
    ? []
    : [`${prompt}${cached === undefined ? "" : ` (${cached} cached)`} prompt tokens`];
  const answer = completion === undefined ? [] : [`${completion} tokens ${entry.attention}`];
  const first = entry.firstTokenMs === undefined ? [] : [`first after ${entry.firstTokenMs} ms`];
  const total = entry.totalMs === undefined ? [] : [`${entry.totalMs} ms`];
  const parts = [...cost, ...answer, ...first, ...total];
  const { time, requestId = "-", client = "-", key = "-", method = "-", path = "-", status = "-", outcome } = entry;
  const generation = entry.id === undefined ? [] : [entry.id, entry.model ?? "-"];
  const words = [time, requestId, client, key, method, path, ...generation, status, outcome];
  return parts.length === 0 ? words.join(" ") : `${words.join(" ")}: ${parts.join(", ")}`;
}
