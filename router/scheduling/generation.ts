/**
 * What HTTP asks of the scheduler, and what comes back: token ids in, token events out.
 * The contract between `chat.ts`/`completions.ts` (text, wire format) and `scheduler.ts` (sequences, pages, steps).
 */

import type { SamplingSettings, SetShape, TokenLogprobs } from "../../engine/span.ts";

/** As few positions as cover a share of the attention. */
export interface AdaptiveBudget {
  /** Above 0, at most 1. */
  readonly coverage: number;
  /** Undefined: the model's calibrated default. */
  readonly atMost: number | undefined;
}

/** How a request wants its decoded rows to attend. `auto` is sparse when the model is calibrated and the context long. */
export interface AttentionRequest {
  readonly mode: "auto" | "dense" | "sparse";
  /** Undefined: the model's calibrated default. */
  readonly budget: number | AdaptiveBudget | undefined;
  readonly heads: SetShape;
}

/** One sequence to generate. Valid by construction: made only by the request parsers. */
export interface GenerationRequest {
  /** The id the client sees, e.g. `chatcmpl-…`. */
  readonly id: string;
  /** At least one token. */
  readonly promptTokens: Uint32Array;
  readonly maxTokens: number;
  readonly sampling: SamplingSettings;
  readonly attention: AttentionRequest;
  /** Drawing one of these ends the sequence with reason `stop`; the token itself is reported. */
  readonly stopTokens: readonly number[];
  /** Keeps prefixes of unlike tenants apart in the prefix cache. */
  readonly cacheSalt: string;
  /** W3C trace context to pass on to the workers. */
  readonly traceparent: string | undefined;
}

/** How the decoded rows really attended; goes into `usage.attention`. */
export interface AttentionUsage {
  readonly mode: "dense" | "sparse";
  readonly budget: number | "auto" | undefined;
  /** Set when the budget is `auto`. */
  readonly coverage?: number;
  readonly selectLayers: readonly number[];
  /** Positions in the cache at the end. */
  readonly context: number;
  /** KV rows one KV head read over all layers, mean over the decoded tokens; 0 when none was decoded. */
  readonly rowsReadPerToken: number;
}

/** What a sequence cost. */
export interface GenerationUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens whose keys and values were found in the prefix cache. */
  readonly cachedTokens: number;
  readonly attention: AttentionUsage;
}

/** What happens to a sequence, in order: any number of `prefill`, then `token`s, then one `finished`. */
export type GenerationEvent =
  | { readonly kind: "prefill"; readonly total: number; readonly cached: number; readonly processed: number }
  | { readonly kind: "token"; readonly token: number; readonly logprobs: TokenLogprobs | undefined }
  | { readonly kind: "finished"; readonly reason: "stop" | "length"; readonly usage: GenerationUsage };

/** A running generation: a single-use stream of events, and its cost so far (for stop strings, which end it early). */
export interface Generation extends AsyncIterable<GenerationEvent> {
  /** Usage at this moment; complete after `finished`, and good for an answer cut short by a stop string. */
  usage(): GenerationUsage;
  /**
   * Ends the sequence and frees its pages; harmless when it is over. The iterator then ends without `finished`.
   * Leaving the `for await` loop early calls it too.
   */
  cancel(): void;
}

/** Implemented by the scheduler; faked by HTTP tests. */
export interface Generator {
  /**
   * Queues a request. Errors after admission are thrown by the iterator, always as a coded error.
   * @throws {RequestError} `context_length_exceeded` (both numbers named), `queue_full`, `draining`, `group_unavailable`
   */
  generate(request: GenerationRequest): Generation;
}
