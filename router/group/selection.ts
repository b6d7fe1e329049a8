/**
 * The one place where positions are chosen for a group of workers: each has put forward the best of its own slice, and the
 * best of them all are the best of the whole cache. Knows values and positions; knows nothing of workers or messages.
 */

import type { PositionList } from "../../engine/exchange.ts";
import { ProtocolError } from "../../workers/errors.ts";

/** Buckets of one pass over the keys. */
const RADIX_BITS = 8;
const RADIX = 1 << RADIX_BITS;
const SIGN = 0x8000_0000;

/**
 * The best `budget` of all entries: highest value first, of equal values the lowest position. Exact.
 * @param lists of workers that own different positions
 * @returns positions, ascending
 * @throws {ProtocolError} when a value is missing or not a number, or a chosen position comes twice
 */
export function chooseBest(lists: readonly PositionList[], budget: number): Uint32Array<ArrayBuffer> {
  const { positions, keys } = join(lists);
  const chosen = positions.length <= budget ? positions : cut(positions, keys, budget);
  chosen.sort();
  for (let i = 1; i < chosen.length; i++) {
    if (chosen[i] === chosen[i - 1]) throw new ProtocolError(`Cannot choose positions: ${chosen[i]} comes twice`);
  }
  return chosen;
}

/** All entries, with a key for each value: the higher the value, the higher the key. */
function join(lists: readonly PositionList[]): { positions: Uint32Array<ArrayBuffer>; keys: Uint32Array } {
  const total = lists.reduce((sum, list) => sum + list.positions.length, 0);
  const positions = new Uint32Array(total);
  const values = new Float32Array(total);
  let at = 0;
  for (const list of lists) {
    if (list.values.length !== list.positions.length) {
      throw new ProtocolError(`Cannot choose positions: ${list.positions.length} have ${list.values.length} values`);
    }
    positions.set(list.positions, at);
    values.set(list.values, at);
    at += list.positions.length;
  }
  const keys = new Uint32Array(values.buffer);
  for (let i = 0; i < total; i++) {
    const value = values[i] ?? NaN;
    if (Number.isNaN(value)) throw new ProtocolError("Cannot choose positions: a value is not a number");
    // Adding 0 makes one zero of two.
    values[i] = value + 0;
    const bits = keys[i] ?? 0;
    keys[i] = bits & SIGN ? ~bits : bits | SIGN;
  }
  return { positions, keys };
}

/** Positions of the `budget` best entries, fewer than there are, in any order. */
function cut(positions: Uint32Array, keys: Uint32Array, budget: number): Uint32Array<ArrayBuffer> {
  const chosen = new Uint32Array(budget);
  if (budget === 0) return chosen;
  const last = nthKey(keys, budget);
  const ties: number[] = [];
  let count = 0;
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i] ?? 0;
    if (key > last) chosen[count++] = positions[i] ?? 0;
    else if (key === last) ties.push(positions[i] ?? 0);
  }
  chosen.set(ties.sort((a, b) => a - b).slice(0, budget - count), count);
  return chosen;
}

/**
 * The n-th highest key, found digit by digit from the highest on, without sorting.
 * @param n from 1 to the number of keys
 */
function nthKey(keys: Uint32Array, n: number): number {
  const counts = new Uint32Array(RADIX);
  let prefix = 0;
  let missing = n;
  for (let shift = 32 - RADIX_BITS; shift >= 0; shift -= RADIX_BITS) {
    counts.fill(0);
    for (let i = 0; i < keys.length; i++) {
      // In two moves: a shift by 32 bits would move nothing.
      const digits = (keys[i] ?? 0) >>> shift;
      const digit = digits & (RADIX - 1);
      if (digits >>> RADIX_BITS === prefix) counts[digit] = (counts[digit] ?? 0) + 1;
    }
    let digit = RADIX - 1;
    while (digit > 0 && (counts[digit] ?? 0) < missing) missing -= counts[digit--] ?? 0;
    prefix = prefix * RADIX + digit;
  }
  return prefix;
}
