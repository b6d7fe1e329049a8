/**
 * When the sparse rows of one sequence are computed again with full attention, and what that found. Decided by the rows of
 * the sequence, its own agreement and settings that are fixed at admission, never by time: the same rows of a request
 * are corrected, alone or in a batch. Only the length of lossless rounds follows measured times: whatever it is, they
 * give the same tokens. How a correction is spread over steps is the planner's.
 *
 * A correction is one dense span over all rows that are not exact, the newest included, so it replaces a decode step:
 * with a stride of N every N-th step is one, of N rows. `refresh` writes K and V again; `audit` also compares what
 * dense decoding draws; `lossless` releases tokens only when it agrees.
 */

import type { AuditedToken, CorrectionRequest, CorrectionUsage } from "./generation.ts";
import { bestRound, RecentAgreement, type RoundCost } from "./round_stride.ts";

/** The longest stride that can be asked for, in tokens. */
export const MAX_CORRECT_EVERY = 65_536;

/** Rows of the first correction whose stride follows the agreement. */
const FIRST_ROWS = 4;

/** Fewest and most rows of an audit. */
const AUDITED = { least: 4, most: 64 } as const;

/** The stride of an audit grows by this factor after a correction that agreed throughout, … */
const LENGTHEN = 1.5;

/** … and shrinks by this one after a divergence. */
const SHORTEN = 0.5;

/**
 * Least number of verifications, and largest share of them that overruled a draft, for rows to run ahead of the next one: waiting
 * for its result takes a fifth of a sparse step, and a row computed for nothing a whole one.
 */
const MIN_CORRECTIONS = 4;
const MAX_OVERRULED = 0.1;

/** Rows of a refresh that the request leaves to the service; ReSA found 32 to 64 best. */
const REFRESH_ROWS = 32;

/** What one correction span did. */
export interface CorrectionReport {
  readonly mode: CorrectionUsage["mode"];
  /** Whether it was the last span of its correction. */
  readonly isLast: boolean;
  readonly rows: number;
  readonly checked: number;
  readonly agreed: number;
  /** Sum of KL(dense ‖ sparse) in nats over `measured` tokens. */
  readonly divergence: number;
  readonly measured: number;
  /** Drafts that were thrown away. */
  readonly dropped: number;
}

/** A token that was drawn sparsely, and what full attention draws in its place. */
export type Check = Omit<AuditedToken, "choice">;

/** The outcome of a correction span. */
export interface CorrectedSpan {
  /** Computed. */
  readonly rows: number;
  /** Of the rows whose next token was drawn sparsely, up to the first divergence when that is one too many. */
  readonly checks: readonly Check[];
  /** Drafts after the first divergence, that one included. */
  readonly dropped: number;
  /** False: the correction was cut for time, and goes on in a later step. */
  readonly isLast: boolean;
}

/** The corrections of one sequence, from its first token to its last. */
export class Correction {
  readonly #request: CorrectionRequest;
  /** Longest context that is refreshed without a stride being asked for. */
  readonly #cheapContext: number;
  #stride: number | undefined;
  /** Of the spans so far of a correction that was cut for time. */
  #unfinished = { checked: 0, agreed: 0 };
  #corrections = 0;
  #rows = 0;
  #dropped = 0;
  #rollbacks = 0;
  #checked = 0;
  #agreed = 0;
  #divergence = 0;
  #measured = 0;
  #firstDivergence: number | undefined;
  readonly #tokens: Check[] = [];
  readonly #agreement = new RecentAgreement();

  /** @param cheapContext longest context at which `refresh` corrects without a stride being asked for; 0: none is */
  constructor(request: CorrectionRequest, cheapContext: number) {
    this.#request = request;
    this.#cheapContext = request.every === "auto" && request.mode === "refresh" ? cheapContext : Infinity;
    const { mode, every } = request;
    if (every !== "auto") this.#stride = every;
    else if (mode === "audit" || mode === "lossless") this.#stride = FIRST_ROWS;
    else if (cheapContext > 0) this.#stride = REFRESH_ROWS;
  }

  /** Whether sparse rows are ever corrected. */
  get isOn(): boolean {
    return this.#request.mode !== "off";
  }

  /** Whether corrections compare what they draw. */
  get audits(): boolean {
    return this.#request.mode === "audit" || this.withholdsTokens;
  }

  /** Whether tokens wait for a correction to agree. */
  get withholdsTokens(): boolean {
    return this.#request.mode === "lossless";
  }

  /** Whether so few of its verifications overruled a draft that the row after one may be computed before its result is there. */
  get mostlyAgrees(): boolean {
    return this.#corrections >= MIN_CORRECTIONS && this.#rollbacks <= MAX_OVERRULED * this.#corrections;
  }

  /**
   * Whether rows must be corrected before the sequence goes on.
   * @param rows that are not exact, the newest included
   * @param context positions that the newest row sees
   */
  isDue(rows: number, context: number): boolean {
    return this.isOn && this.#stride !== undefined && rows >= this.#stride && context <= this.#cheapContext;
  }

  /** Takes in what a correction span did. @param costOf a round of the sequence, as far as that is known */
  record({ rows, checks, dropped, isLast }: CorrectedSpan, costOf: RoundCost = () => undefined): CorrectionReport {
    const { mode } = this.#request;
    if (mode === "off") throw new RangeError("Cannot record a correction: corrections are off");
    const agreed = checks.filter(({ token, dense }) => token === dense).length;
    const known = checks.flatMap(({ divergence }) => divergence ?? []);
    const divergence = known.reduce((sum, each) => sum + each, 0);
    if (isLast) this.#corrections++;
    this.#rows += rows;
    this.#dropped += dropped;
    this.#checked += checks.length;
    this.#agreed += agreed;
    this.#divergence += divergence;
    this.#measured += known.length;
    this.#firstDivergence ??= checks.find(({ token, dense }) => token !== dense)?.index;
    if (this.withholdsTokens && agreed < checks.length) this.#rollbacks++;
    if (this.#request.perToken) this.#tokens.push(...checks);
    this.#unfinished.checked += checks.length;
    this.#unfinished.agreed += agreed;
    if (isLast) this.#adapt(costOf);
    return { mode, isLast, rows, checked: checks.length, agreed, divergence, measured: known.length, dropped };
  }

  usage(): CorrectionUsage | undefined {
    const { mode, every } = this.#request;
    if (mode === "off") return undefined;
    return {
      mode,
      every,
      stride: this.#stride,
      corrections: this.#corrections,
      rows: this.#rows,
      rollbacks: this.#rollbacks,
      dropped: this.#dropped,
      audit: this.audits
        ? {
          checked: this.#checked,
          agreed: this.#agreed,
          divergence: this.#divergence,
          measured: this.#measured,
          firstDivergence: this.#firstDivergence,
          ...(this.#request.perToken && { tokens: this.#tokens.map((token) => ({ ...token, choice: 0 })) }),
        }
        : undefined,
    };
  }

  /** By the whole correction: where it was cut must not matter. */
  #adapt(costOf: RoundCost): void {
    const { checked, agreed } = this.#unfinished;
    this.#unfinished = { checked: 0, agreed: 0 };
    if (checked === 0) return;
    const isPerfect = agreed === checked;
    const { mode, every } = this.#request;
    this.#agreement.record({ checked, agreed });
    if (every !== "auto" || this.#stride === undefined) return;
    if (mode === "lossless") this.#stride = bestRound(this.#agreement.probability, costOf) ?? this.#stride;
    if (mode !== "audit") return;
    const { least, most } = AUDITED;
    const wanted = isPerfect ? Math.ceil(this.#stride * LENGTHEN) : Math.floor(this.#stride * SHORTEN);
    this.#stride = Math.min(most, Math.max(least, wanted));
  }
}
