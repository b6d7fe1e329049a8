/**
 * Puts the moments of a request's life together, and hands them over when it has ended: to metrics, traces and the log.
 * Knows moments and numbers; never sees a prompt or an answer.
 */

import type { RequestContext, RequestOrigin } from "../access/request_context.ts";
import type { GenerationRequest } from "../scheduling/generation.ts";
import type {
  AcceptedRequest,
  Operation,
  RequestObservation,
  RequestObserver,
  RequestOutcome,
} from "../http/request_observer.ts";

/** What is known when a request comes in. */
export interface ReceivedRequest {
  readonly operation: Operation;
  readonly id: string;
  /** The client's own trace context. */
  readonly traceparent: string | undefined;
  /** Where it came from; its line in the log is written by the recorder's sinks. */
  readonly context?: RequestContext | undefined;
}

/** A whole life; moments are milliseconds since the epoch, with fractions. */
export interface RequestRecord {
  readonly operation: Operation;
  readonly id: string;
  /** Who sent it; undefined for a request that did not come through the access control. */
  readonly origin: RequestOrigin | undefined;
  readonly receivedAt: number;
  /** Undefined: it was refused. */
  readonly accepted: AcceptedRequest | undefined;
  /** When the first of its sequences got pages; undefined: it never ran. */
  readonly admittedAt: number | undefined;
  /** The longest any of its sequences waited. */
  readonly queueMs: number | undefined;
  readonly firstTokenAt: number | undefined;
  readonly endedAt: number;
  readonly keepAlives: number;
  readonly outcome: RequestOutcome;
}

/** Follows one request from the moment it comes in. */
export interface RequestTrace {
  /** To pass on to the workers; undefined: tracing is off. */
  readonly traceparent: string | undefined;
  end(record: RequestRecord): void;
}

/** Gets every finished request. */
export type RecordSink = (record: RequestRecord) => void;

/** Now, on the clock of records. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** The one observer of the HTTP layer. */
export class RequestRecorder implements RequestObserver {
  readonly #trace: (received: ReceivedRequest) => RequestTrace;
  readonly #sinks: readonly RecordSink[];
  readonly #live = new Map<string, LiveRequest>();

  constructor(trace: (received: ReceivedRequest) => RequestTrace, sinks: readonly RecordSink[]) {
    this.#trace = trace;
    this.#sinks = sinks;
  }

  received(received: ReceivedRequest): RequestObservation {
    received.context?.record();
    const trace = this.#trace(received);
    const live = new LiveRequest(received, trace.traceparent, (record) => {
      this.#live.delete(received.id);
      trace.end(record);
      for (const sink of this.#sinks) sink(record);
    });
    this.#live.set(received.id, live);
    return live;
  }

  /** A sequence of some request got its first pages; called by the scheduler. */
  admitted(request: GenerationRequest, queueMs: number): void {
    // Of several sequences, each has the id of the request with `-<number>` appended.
    const live = this.#live.get(request.id) ?? this.#live.get(request.id.replace(/-\d+$/, ""));
    live?.admitted(queueMs);
  }
}

class LiveRequest implements RequestObservation {
  readonly traceparent: string | undefined;
  readonly #received: ReceivedRequest;
  readonly #receivedAt = nowMs();
  readonly #done: RecordSink;
  #accepted: AcceptedRequest | undefined;
  #admittedAt: number | undefined;
  #queueMs: number | undefined;
  #firstTokenAt: number | undefined;
  #keepAlives = 0;

  constructor(received: ReceivedRequest, traceparent: string | undefined, done: RecordSink) {
    this.#received = received;
    this.traceparent = traceparent;
    this.#done = done;
  }

  accepted(request: AcceptedRequest): void {
    this.#accepted = request;
  }

  admitted(queueMs: number): void {
    this.#admittedAt ??= nowMs();
    this.#queueMs = Math.max(this.#queueMs ?? 0, queueMs);
  }

  firstToken(): void {
    this.#firstTokenAt ??= nowMs();
  }

  keepAlive(): void {
    this.#keepAlives++;
  }

  ended(outcome: RequestOutcome): void {
    this.#done({
      operation: this.#received.operation,
      id: this.#received.id,
      origin: this.#received.context?.origin,
      receivedAt: this.#receivedAt,
      accepted: this.#accepted,
      admittedAt: this.#admittedAt,
      queueMs: this.#queueMs,
      firstTokenAt: this.#firstTokenAt,
      endedAt: nowMs(),
      keepAlives: this.#keepAlives,
      outcome,
    });
  }
}
