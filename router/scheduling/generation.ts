/**
 * What HTTP asks of the scheduler, and what comes back: token ids in, token events out.
 * The contract between `chat.ts`/`completions.ts` (text, wire format) and `scheduler.ts` (sequences, pages, steps).
 */

import type { SamplingSettings, SetShape, TokenLogprobs } from "../../engine/span.ts";
import type { GrammarSpec } from "../grammar/grammar_spec.ts";

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
  readonly correction: CorrectionRequest;
}

/**
 * What happens to the rows that were decoded sparsely. `refresh`: their keys and values are computed again with full
 * attention; `audit`: that pass also reports what dense decoding would have drawn; `lossless`: tokens wait for it, and the
 * answer is that of dense decoding.
 */
export interface CorrectionRequest {
  readonly mode: "off" | "refresh" | "audit" | "lossless";
  /** Tokens, at least 1; `auto`: as often as is cheap (`refresh`), or as the agreement allows (`audit`, `lossless`). */
  readonly every: number | "auto";
  /** Whether an audit lists every token that it checked. */
  readonly perToken: boolean;
}

/** Sparse rows stay as they are: also what a stride of 0 means. */
export const NO_CORRECTION: CorrectionRequest = { mode: "off", every: "auto", perToken: false };

/** Whether such corrections compare what was drawn; those need a stride. */
export function audits(mode: CorrectionRequest["mode"]): boolean {
  return mode === "audit" || mode === "lossless";
}

/** One sequence to generate. Valid by construction: made only by the request parsers. */
export interface GenerationRequest {
  /** The id the client sees, e.g. `chatcmpl-…`. */
  readonly id: string;
  /** The same for all choices of one request to the service, and how many these are. */
  readonly requestId: string;
  readonly choices: number;
  /** Lower ones go first; among equal ones order of arrival and length decide. */
  readonly priority: number;
  /** At least one token. */
  readonly promptTokens: Uint32Array;
  readonly maxTokens: number;
  /** The client did not ask for so many: a group that holds less may end the answer earlier. */
  readonly isMaxTokensOpen?: boolean;
  readonly sampling: SamplingSettings;
  readonly attention: AttentionRequest;
  /** What the answer must look like; undefined: anything. */
  readonly grammar?: GrammarSpec | undefined;
  /** Drawing one of these ends the sequence with reason `stop`; the token itself is reported. */
  readonly stopTokens: readonly number[];
  /** Keeps prefixes of different tenants apart in the prefix cache. */
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
  /** Undefined: corrections were off. */
  readonly correction: CorrectionUsage | undefined;
}

/** What corrections did and found. */
export interface CorrectionUsage {
  readonly mode: Exclude<CorrectionRequest["mode"], "off">;
  readonly every: number | "auto";
  /** Every so many tokens, at the end; undefined: whenever it was cheap. */
  readonly stride: number | undefined;
  /** Spans; one that was cut for time counts once for each piece. */
  readonly corrections: number;
  /** Rows computed by them, those of the newest tokens included. */
  readonly rows: number;
  /** Corrections that made the sequence start over from one of its drafts. */
  readonly rollbacks: number;
  /** Drafts that were thrown away by them, those that diverged included. */
  readonly dropped: number;
  /** Undefined: nothing was compared. */
  readonly audit: AuditUsage | undefined;
}

/** How tokens that were drawn sparsely compare with what full attention draws in their place. */
export interface AuditUsage {
  readonly checked: number;
  readonly agreed: number;
  /** Sum of KL(dense ‖ sparse) in nats over `measured` of the checked tokens. */
  readonly divergence: number;
  readonly measured: number;
  /** Index in the output of the first token that did not agree. */
  readonly firstDivergence: number | undefined;
  /** Set when the request asked for it. */
  readonly tokens?: readonly AuditedToken[];
}

/** One checked token. */
export interface AuditedToken {
  readonly choice: number;
  /** In the output. */
  readonly index: number;
  readonly token: number;
  /** What full attention draws there. */
  readonly dense: number;
  /** KL(dense ‖ sparse) in nats; undefined when the sparse logits are gone. */
  readonly divergence: number | undefined;
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

/**
 * Whether the penalties of a request count tokens of a cached prefix: repetition counts the prompt's, the others those of
 * the output, which a rebuilt sequence may find in the cache too.
 * @param prefix tokens that came from the cache
 */
export function countsPrefix({ promptTokens, sampling }: GenerationRequest, prefix: number): boolean {
  const penalizesOutput = sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0;
  return sampling.repetitionPenalty !== 1 || (penalizesOutput && prefix > promptTokens.length);
}
