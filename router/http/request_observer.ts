/**
 * What the HTTP layer reports to its observers: the life of one generation request, from its first byte to its end.
 * Knows moments and numbers; never sees a prompt or an answer, and knows nothing of metrics systems.
 */

import type { RequestContext } from "../access/request_context.ts";
import type { AttentionRequest, GenerationUsage } from "../scheduling/generation.ts";

/** Names as in the GenAI conventions. */
export type Operation = "chat" | "text_completion" | "responses";

/** How far a request had come when its client left. */
export type RequestPhase = "reading" | "prefill" | "decode";

/** Known when the request has been parsed and queued. */
export interface AcceptedRequest {
  readonly model: string;
  readonly stream: boolean;
  /** Sequences it is made of: prompts × n. */
  readonly choices: number;
  /** Over all prompts. */
  readonly promptTokens: number;
  /** Per choice, the largest. */
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly attention: AttentionRequest;
}

/** How a request ended. */
export type RequestOutcome =
  | { readonly kind: "finished"; readonly reasons: readonly string[]; readonly usage: GenerationUsage }
  | { readonly kind: "failed"; readonly code: string; readonly status: number }
  | { readonly kind: "disconnected"; readonly phase: RequestPhase };

/** Follows one request. */
export interface RequestObservation {
  /** W3C trace context for the workers; undefined: tracing is off. */
  readonly traceparent: string | undefined;
  /** At most once; never when the request is refused. */
  accepted(request: AcceptedRequest): void;
  /** At most once: the first token of any of its choices. */
  firstToken(): void;
  /** A keep-alive comment was written. */
  keepAlive(): void;
  /** Exactly once, last. */
  ended(outcome: RequestOutcome): void;
}

/** Implemented by telemetry. */
export interface RequestObserver {
  /** @param request.traceparent the client's own trace context, if it sent one */
  received(request: {
    readonly operation: Operation;
    /** The id the client sees in the answer. */
    readonly id: string;
    readonly traceparent: string | undefined;
    /** Undefined for a request that did not come through the access control. */
    readonly context: RequestContext | undefined;
  }): RequestObservation;
}
