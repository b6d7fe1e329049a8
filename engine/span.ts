/**
 * The unit of work: a step, whose heart is a list of spans, and what comes back from it. Plain data that
 * crosses the wire as it is. Knows tokens, positions and pages; knows nothing of tensors or HTTP.
 *
 * Length is not state: row i of a span sees positions 0 … from + i, so rollback is just the next span's `from`.
 */

import { EngineError } from "./errors.ts";
import { PAGE_ROWS } from "../kernels/attention/kv_pages.ts";
import type { SetShape } from "../kernels/attention/row_table.ts";

export type { SetShape };

/** Names a sequence within one group; chosen by the router, never reused while the group lives. */
export type SequenceId = number;

/** Consecutive positions in one page, all layers. */
export const PAGE_TOKENS = PAGE_ROWS;

/** How the sparse rows of a sequence attend. */
export interface SparseSettings {
  /** Positions a sparse layer reads per row, forced ones included, or at most reads; at least 16. */
  readonly budget: number;
  /**
   * Given: rows are adaptive. Each set is the smallest one of at least 80 positions, and of at most `budget`, whose pooled
   * probabilities (over all that the row sees, on all workers) add up to this; above 0, at most 1. 1 is never reached: such
   * sets have `budget` positions.
   */
  readonly coverage?: number;
  /** @default "kv_head" */
  readonly heads: SetShape;
}

/** How tokens are drawn: Gumbel-max over the full vocabulary. */
export interface SamplingSettings {
  /** 0 is plain argmax. */
  readonly temperature: number;
  /** Smallest set of tokens with at least this probability; 1 is off. */
  readonly topP: number;
  /** 0 is off. */
  readonly topK: number;
  /** Drops tokens below this share of the best token's probability; 0 is off. */
  readonly minP: number;
  /** Over prompt and output; 1 is off. */
  readonly repetitionPenalty: number;
  /** Over the output; 0 is off. */
  readonly presencePenalty: number;
  /** Over the output, per occurrence; 0 is off. */
  readonly frequencyPenalty: number;
  /** Added to the logits, before temperature. */
  readonly logitBias: readonly (readonly [token: number, bias: number])[];
  /** u32; the same seed gives the same answer, alone or in a batch. */
  readonly seed: number;
  /** Before this many output tokens, `suppressed` tokens cannot be drawn. */
  readonly minTokens: number;
  /** Tokens that may not be drawn before `minTokens` (the end-of-turn tokens). */
  readonly suppressed: readonly number[];
  /**
   * Alternatives to report beside the drawn token; undefined: no log-probabilities at all. Requests ask for at most 20; for more
   * the engine reads whole rows of logits.
   */
  readonly topLogprobs: number | undefined;
}

/** Opens a sequence on a worker; carried by the step of its first span. */
export interface SequenceOpening {
  readonly sequence: SequenceId;
  readonly sampling: SamplingSettings;
  readonly sparse: SparseSettings;
  /**
   * How its sparse layers get at what other workers hold, in a group that leaves it to each sequence. Set by the router as the
   * step is sent. @default "states"
   */
  readonly sparseExchange?: "rows" | "states";
  /** Length of the prompt: the token drawn at position p has output index p + 1 − promptTokens. */
  readonly promptTokens: number;
  /** Entry of the group's page map at which its first page lies; 0 in a group of one. */
  readonly pageOffset: number;
  /** Physical pages of a shared prefix, in order of position; spans start after them. */
  readonly prefixPages: Uint32Array;
  /** Tokens of that prefix; sent only if a penalty needs them, else empty. */
  readonly prefixTokens: Uint32Array;
  /** Whether the logits of its sparse rows are kept, to be compared with those of an `audit` span. */
  readonly audited: boolean;
}

interface SpanBase {
  readonly sequence: SequenceId;
  /** Position of the first row. */
  readonly from: number;
  readonly tokens: Uint32Array;
  /**
   * `none`: only the KV cache changes; `last`: a token is drawn after the last row;
   * `all`: the same, and every row is scored against the token of the next row;
   * `audit`, of dense decode spans: a token is drawn after every row.
   */
  readonly logits: "none" | "last" | "all" | "audit";
  /** Teacher forcing, with `all`: the token that follows the last row, which is scored too; none is drawn then. */
  readonly next?: number;
  /**
   * Which tokens may be drawn: a bit for each token of the vocabulary and a row for each row that is drawn after, in their
   * order, u32 [rows drawn after, maskWords(vocabulary)]; absent: all. Masks count as part of the model: log-probabilities and
   * audits see the masked distribution.
   */
  readonly masks?: Uint32Array;
  /**
   * In place of `masks`: the mask of its one draw comes with the step's `LateMasks`, while its rows go through the layers,
   * which do not need it.
   */
  readonly masksFollow?: true;
  /** Physical pages that the sequence takes with this span, in order of position. */
  readonly newPages: Uint32Array;
  /**
   * Of a sparse row: a worker that chooses alone reads back what it chose, which otherwise stays on its GPU. Where the router has
   * chosen, it knows.
   */
  readonly reportsSelection?: true;
  /**
   * Of a decode span: its last token is the one that the step before drew last for the sequence, which need not be known yet;
   * `tokens` holds a 0 in its place. In a group the lead sends it to the others where they need it. Not with `logits: "all"`, which
   * would score it.
   */
  readonly sampled?: true;
}

/**
 * A run of consecutive positions of one sequence. `prefill` computes with tiled products, `decode` (one row, or the
 * many rows of a correction) with the matrix–vector family, whose bits do not depend on the number of rows.
 */
export type Span =
  & SpanBase
  & ({ readonly kind: "prefill" } | { readonly kind: "decode"; readonly attention: "dense" | "sparse" });

/** Everything a group does at once; all its workers run the same step. */
export interface Step {
  readonly index: number;
  readonly open: readonly SequenceOpening[];
  readonly release: readonly SequenceId[];
  readonly spans: readonly Span[];
  /** A worker that has not answered by then counts as lost. */
  readonly deadlineMs: number;
  /** The next step is probably on its way: a worker may record it before it waits for this one. */
  readonly followed?: true;
}

/**
 * The masks of a step's spans that say `masksFollow`, one each, in the order of the spans: u32 [such spans,
 * maskWords(vocabulary)]. They may depend on what the step before drew.
 */
export type LateMasks = Promise<Uint32Array>;

/** Steps that a worker takes at a time: one is computed while the next is recorded. */
export const MAX_STEPS_IN_FLIGHT = 2;

/** Log-probabilities of one drawn token under the model's own distribution: before penalties, bias and temperature. */
export interface TokenLogprobs {
  readonly logprob: number;
  /** Best tokens first; ties by lower id. */
  readonly top: readonly { readonly token: number; readonly logprob: number }[];
}

/** What full attention draws for rows that were decoded sparsely: one entry for each row of the span. */
export interface SpanAudit {
  /** Drawn after each row, with the noise, the penalties and the bias of its place. */
  readonly tokens: Uint32Array;
  /**
   * KL(dense ‖ sparse) in nats, of the model's own distributions (before penalties, bias and temperature); the sparse
   * logits have waited as f16. NaN of rows that no sparse step has computed, or whose logits found no room.
   */
  readonly divergences: Float32Array;
  /** Set when the sequence asked for log-probabilities. */
  readonly logprobs?: readonly TokenLogprobs[];
}

/** What a select layer chose for one sparse row. */
export interface LayerSelection {
  readonly layer: number;
  /** Positions, ascending; one list for each set of heads. */
  readonly sets: readonly Uint32Array[];
}

/** What a span gives back. */
export interface SpanResult {
  readonly sequence: SequenceId;
  /** Set when `logits` is `last` or `all`. */
  readonly token?: number;
  /** Set when the sequence asked for log-probabilities. */
  readonly logprobs?: TokenLogprobs;
  /** Set when `logits` is `all`: one entry for each row whose next token is known. */
  readonly scores?: { readonly logprob: Float32Array; readonly argmax: Uint32Array };
  /** Set when `logits` is `audit`. */
  readonly audit?: SpanAudit;
  /** Of an adaptive row: KV rows that one KV head read over all layers, on average over the sets. Set by the lead. */
  readonly rowsRead?: number;
  /** Set by a worker that chooses alone when the span `reportsSelection`: one entry for each select layer, in their order. */
  readonly selections?: readonly LayerSelection[];
}

/** What the workers of a group send each other and their router: one entry for each kind of exchange. */
export interface ByExchange {
  readonly queries: number;
  /** Keys and values of a prompt's rows. */
  readonly keys: number;
  readonly states: number;
  /** Rows that end on the lead worker. */
  readonly rows: number;
  readonly candidates: number;
  /** Keys and values of rows that a selection needs everywhere. */
  readonly replicas: number;
}

/** What a worker spent on exchanges in a step; absent when it is alone in its group. */
export interface ExchangeTiming {
  /** From own data on the host to that of all peers on the GPU; `candidates` overlap with other work. */
  readonly ms: ByExchange;
  /** Read-backs of own data, GPU work before them included. */
  readonly readMs: number;
  /** Tensor bytes sent to all peers together, or to the router. */
  readonly bytes: ByExchange;
  /** Exchanges in which something was waited for, or sent. */
  readonly counts: ByExchange;
}

/** How sparse layers found what was chosen for them, over all rows, sets and select layers of a step. */
export interface ReplicaCount {
  readonly chosen: number;
  /** Those that the store lacked: their owners have sent them. */
  readonly missing: number;
}

/** Where the time of a step went, in milliseconds. */
export interface StepTiming {
  readonly encodeMs: number;
  /** From the last submit to the data: GPU time that encoding did not hide, and the read-back itself. */
  readonly waitMs: number;
  readonly totalMs: number;
  /** Set by the worker, not by its engine. */
  readonly exchange?: ExchangeTiming;
  /** Set when sparse layers read replicas. */
  readonly replicas?: ReplicaCount;
}

/** The answer to a step: one result for each span, in the order of the spans. */
export interface StepResult {
  readonly index: number;
  readonly spans: readonly SpanResult[];
  readonly timing: StepTiming;
}

/** Whether its row reads a selection in sparse layers. */
export function attendsSparsely(span: Span): boolean {
  return span.kind === "decode" && span.attention === "sparse";
}

/** Rows of a span that a token is drawn after. */
export function drawnRowsOf({ logits, tokens, next }: Pick<Span, "logits" | "tokens" | "next">): number {
  if (logits === "audit") return tokens.length;
  return logits === "none" || next !== undefined ? 0 : 1;
}

/** The token that a span has drawn. @throws {EngineError} `invalid_step` when it drew none, though it was to */
export function drawnToken({ token }: { readonly token?: number | undefined }): number {
  if (token === undefined) throw new EngineError("invalid_step", "Cannot go on decoding: the step drew no token");
  return token;
}

/** Pages needed to hold that many positions. */
export function pagesFor(tokens: number): number {
  return Math.ceil(tokens / PAGE_TOKENS);
}
