/**
 * What an exchange between workers takes: a line over exchanges and bytes through those of late, by least squares. Knows counts,
 * bytes and milliseconds; knows nothing of what is exchanged.
 */

/** What was exchanged in a step, or is to be. */
export interface Exchanged {
  readonly count: number;
  readonly bytes: number;
}

/** Weight that a step keeps when the next one is learned. */
const MEMORY = 0.98;

/** See the top of this file. */
export class LinkFit {
  /** Σ count², Σ count · bytes, Σ bytes², Σ count · ms, Σ bytes · ms. */
  readonly #sums = { cc: 0, cb: 0, bb: 0, cm: 0, bm: 0 };
  readonly #meanBytes = new Map<string, number>();

  /** Takes what a step took for exchanges of one kind; nothing is learned of none. */
  learn(kind: string, { count, bytes }: Exchanged, ms: number): void {
    if (count === 0) return;
    this.#meanBytes.set(kind, bytes / count);
    const sums = this.#sums;
    for (const key of ["cc", "cb", "bb", "cm", "bm"] as const) sums[key] *= MEMORY;
    sums.cc += count * count;
    sums.cb += count * bytes;
    sums.bb += bytes * bytes;
    sums.cm += count * ms;
    sums.bm += bytes * ms;
  }

  /** Bytes of an exchange of that kind, as it was last. */
  bytesOf(kind: string): number {
    return this.#meanBytes.get(kind) ?? 0;
  }

  /** @returns milliseconds; 0 while nothing was learned */
  predictMs({ count, bytes }: Exchanged): number {
    const { cc, cb, bb, cm, bm } = this.#sums;
    if (cc === 0) return 0;
    const determinant = cc * bb - cb * cb;
    // Exchanges of one size say nothing about bytes.
    const isFlat = determinant <= 1e-9 * cc * bb;
    const perByte = isFlat ? 0 : Math.max(0, (bm * cc - cm * cb) / determinant);
    const each = perByte === 0 ? cm / cc : Math.max(0, (cm - perByte * cb) / cc);
    return count * each + bytes * perByte;
  }
}
