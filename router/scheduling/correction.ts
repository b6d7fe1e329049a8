/**
 * When the sparse rows of one sequence are computed again with full attention, and what that found. Knows strides, counts
 * and agreement; the positions are the sequence's, and what a correction costs is the planner's.
 *
 * A correction is one dense span over all rows that are not exact, the newest included, so it replaces a decode step:
 * with a stride of N every N-th step is one, of N rows. ALGORITHM: `refresh` writes K and V anew; `audit` also compares what
 * dense decoding draws; `lossless` releases tokens only when it agrees.
 */

import type { AuditedToken, CorrectionRequest, CorrectionUsage } from "./generation.ts";

/** The longest stride that can be asked for, in tokens. */
export const MAX_CORRECT_EVERY = 65_536;

/** Fewest and most rows of a correction whose stride follows the agreement. */
const STRIDES = {
  audit: { first: 4, least: 4, most: 64 },
  // Of two rows one is a draft: with fewer nothing could be found out. Longer rounds than the longest lose more drafts than
  // they save: on an H100, an 8B shape at 100,000 with 96 % agreement takes 17.7 ms a token by 8 rows and 20.9 ms by 16.
  lossless: { first: 4, least: 2, most: 8 },
} as const;

/** A stride grows by this factor after a correction that agreed throughout, … */
const LENGTHEN = 1.5;

/** … and shrinks by this one after a divergence. */
const SHORTEN = 0.5;

/** Sparse rows, the newest included, from which on a refresh may be made as soon as it is cheap enough. */
const LEAST_REFRESH = 16;

/** What one correction span did. */
export interface CorrectionReport {
  readonly mode: CorrectionUsage["mode"];
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

/** The corrections of one sequence, from its first token to its last. */
export class Correction {
  readonly #request: CorrectionRequest;
  #stride: number | undefined;
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

  constructor(request: CorrectionRequest) {
    this.#request = request;
    const { mode, every } = request;
    if (every !== "auto") this.#stride = every;
    else if (mode === "audit" || mode === "lossless") this.#stride = STRIDES[mode].first;
  }

  /** Whether sparse rows are ever corrected. */
  get isOn(): boolean {
    return this.#request.mode !== "off";
  }

  /** Whether corrections compare what they draw. */
  get audits(): boolean {
    return this.#request.mode === "audit" || this.holdsBack;
  }

  /** Whether tokens wait for a correction to agree. */
  get holdsBack(): boolean {
    return this.#request.mode === "lossless";
  }

  /** Whether rows must be corrected now. @param rows that are not exact, the newest included */
  isDue(rows: number): boolean {
    return this.isOn && this.#stride !== undefined && rows >= this.#stride;
  }

  /** Whether rows should be corrected as soon as that is cheap enough. */
  isWelcome(rows: number): boolean {
    return this.isOn && this.#stride === undefined && rows >= LEAST_REFRESH;
  }

  /**
   * Takes in what a correction span did.
   * @param rows computed
   * @param checks of the rows whose next token was drawn sparsely, up to the first divergence when that is one too many
   * @param dropped drafts behind it
   */
  took({ rows, checks, dropped }: { rows: number; checks: readonly Check[]; dropped: number }): CorrectionReport {
    const { mode } = this.#request;
    if (mode === "off") throw new RangeError("Cannot take in a correction: corrections are off");
    const agreed = checks.filter(({ token, dense }) => token === dense).length;
    const known = checks.flatMap(({ divergence }) => divergence ?? []);
    const divergence = known.reduce((sum, each) => sum + each, 0);
    this.#corrections++;
    this.#rows += rows;
    this.#dropped += dropped;
    this.#checked += checks.length;
    this.#agreed += agreed;
    this.#divergence += divergence;
    this.#measured += known.length;
    this.#firstDivergence ??= checks.find(({ token, dense }) => token !== dense)?.index;
    if (this.holdsBack && agreed < checks.length) this.#rollbacks++;
    if (this.#request.perToken) this.#tokens.push(...checks);
    if (checks.length > 0) this.#adapt(agreed === checks.length);
    return { mode, rows, checked: checks.length, agreed, divergence, measured: known.length, dropped };
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

  #adapt(isPerfect: boolean): void {
    const { mode, every } = this.#request;
    if (every !== "auto" || (mode !== "audit" && mode !== "lossless") || this.#stride === undefined) return;
    const { least, most } = STRIDES[mode];
    const wanted = isPerfect ? Math.ceil(this.#stride * LENGTHEN) : Math.floor(this.#stride * SHORTEN);
    this.#stride = Math.min(most, Math.max(least, wanted));
  }
}
