/**
 * How many rows a lossless round has: as many as give the most tokens per time, by what rounds are predicted to take
 * and how many drafts agreed lately. No token depends on it: all are those of dense decoding.
 */

/** Milliseconds of a round of so many rows: its drafts, and their verification; undefined: nothing is known. */
export type RoundCost = (rows: number) => number | undefined;

/** Powers of two fill the tiles that verify: 5 rows take as long as 8. */
const ROUND_ROWS = [2, 4, 8, 16] as const;

/** What a sequence is assumed to have drafted before its first draft: ten drafts, nine of them right. */
const BEFORE = { checked: 10, agreed: 9 } as const;

/** Weight that drafts keep with each round after theirs: the last 50 or so count. */
const MEMORY = 0.98;

/** The agreement of a sequence's drafts, the newer the more. */
export class RecentAgreement {
  #checked: number = BEFORE.checked;
  #agreed: number = BEFORE.agreed;

  /** Takes in the outcome of a round. @param checked drafts up to the first that disagreed, that one included */
  record({ checked, agreed }: { readonly checked: number; readonly agreed: number }): void {
    this.#checked = MEMORY * this.#checked + checked;
    this.#agreed = MEMORY * this.#agreed + agreed;
  }

  /** Probability that the next draft agrees, if those before it did. */
  get probability(): number {
    return this.#agreed / this.#checked;
  }
}

/**
 * Tokens that a lossless round is expected to release: the drafts before the first that disagrees, and the token that
 * the verification draws itself.
 * @param rows of the verification, one more than there are drafts
 * @param agreement probability that a draft agrees when all before it did, from 0 to 1
 */
export function expectedTokens(rows: number, agreement: number): number {
  return agreement === 1 ? rows : (1 - agreement ** rows) / (1 - agreement);
}

/** Rows of the round that takes least time for a token; undefined where costs are not known. */
export function bestRound(agreement: number, costOf: RoundCost): number | undefined {
  let best: { readonly rows: number; readonly msPerToken: number } | undefined;
  for (const rows of ROUND_ROWS) {
    const ms = costOf(rows);
    if (ms === undefined) return undefined;
    const msPerToken = ms / expectedTokens(rows, agreement);
    if (best === undefined || msPerToken < best.msPerToken) best = { rows, msPerToken };
  }
  return best?.rows;
}
