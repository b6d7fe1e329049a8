/**
 * The one place where positions are chosen for a group of workers: each offers the best of its own slice, and the best
 * of all offers are the best of the whole cache. Knows values and positions; knows nothing of workers or messages.
 */

import type { PositionList } from "../../engine/exchange.ts";
import { ADAPTIVE_FLOOR } from "../../engine/layer_plan.ts";
import { massOf, neededMass } from "../../kernels/attention/mass.ts";
import { ProtocolError } from "../../workers/errors.ts";

/** Buckets of one pass over the keys. */
const RADIX_BITS = 8;
const RADIX = 1 << RADIX_BITS;
const SIGN = 0x8000_0000;

/** How many positions a list gets. */
export interface ChoiceBounds {
  /** As many, if there are that many. */
  readonly budget: number;
  /** Given: at most so many, the fewest that cover this share of the attention, and not below 80. */
  readonly coverage?: number;
}

/**
 * The best entries: highest value first, of equal values the lowest position. Exact, and what one worker would choose
 * that had all these values.
 * @param lists of workers that own different positions
 * @returns positions, ascending
 * @throws {ProtocolError} when a value is missing or not a number, or a chosen position comes twice
 */
export function chooseBest(
  lists: readonly PositionList[],
  { budget, coverage }: ChoiceBounds,
): Uint32Array<ArrayBuffer> {
  const { positions, values, keys } = join(lists);
  const most = Math.min(budget, positions.length);
  const goal = coverage === undefined
    ? { most, least: most, mass: 0 }
    : { most, least: Math.min(ADAPTIVE_FLOOR, most), mass: neededMass(coverage) };
  const masses = coverage === undefined ? undefined : Float64Array.from(values, massOf);
  const chosen = goal.least === positions.length ? positions : cut(positions, { keys, masses }, goal);
  chosen.sort();
  for (let i = 1; i < chosen.length; i++) {
    if (chosen[i] === chosen[i - 1]) throw new ProtocolError(`Cannot choose positions: ${chosen[i]} comes twice`);
  }
  return chosen;
}

/** All entries, with a key for each value: the higher the value, the higher the key. */
function join(
  lists: readonly PositionList[],
): { positions: Uint32Array<ArrayBuffer>; values: Float32Array; keys: Uint32Array } {
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
  const keys = new Uint32Array(total);
  const bitsOf = new Uint32Array(values.buffer);
  for (let i = 0; i < total; i++) {
    const value = values[i] ?? NaN;
    if (Number.isNaN(value)) throw new ProtocolError("Cannot choose positions: a value is not a number");
    // Adding 0 turns −0 into 0.
    values[i] = value + 0;
    const bits = bitsOf[i] ?? 0;
    keys[i] = bits & SIGN ? ~bits : bits | SIGN;
  }
  return { positions, values, keys };
}

/** Entries as they are compared and weighed. */
interface Weighed {
  readonly keys: Uint32Array;
  /** Undefined: they weigh nothing. */
  readonly masses: Float64Array | undefined;
}

/** What the best entries must come to together: `least` of them and the mass, or `most` of them. */
interface Goal {
  readonly most: number;
  readonly least: number;
  readonly mass: number;
}

function enough(count: number, mass: number, goal: Goal): boolean {
  return count >= goal.most || (count >= goal.least && mass >= goal.mass);
}

/** Positions of the fewest best entries that reach a goal which all of them reach, in any order. */
function cut(positions: Uint32Array, entries: Weighed, goal: Goal): Uint32Array<ArrayBuffer> {
  if (goal.most === 0) return new Uint32Array(0);
  const { keys, masses } = entries;
  const last = lastKey(entries, goal);
  const chosen = new Uint32Array(goal.most);
  const ties: number[] = [];
  let [count, mass, each] = [0, 0, 0];
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i] ?? 0;
    if (key === last) {
      ties.push(positions[i] ?? 0);
      each = masses?.[i] ?? 0;
    } else if (key > last) {
      chosen[count++] = positions[i] ?? 0;
      mass += masses?.[i] ?? 0;
    }
  }
  // Equal values weigh the same.
  for (const position of ties.sort((a, b) => a - b)) {
    if (enough(count, mass, goal)) break;
    chosen[count++] = position;
    mass += each;
  }
  return chosen.slice(0, count);
}

/** The highest key down to which the entries reach a goal, found digit by digit from the highest on, without sorting. */
function lastKey({ keys, masses }: Weighed, goal: Goal): number {
  const counts = new Uint32Array(RADIX);
  const sums = new Float64Array(RADIX);
  let [prefix, count, mass] = [0, 0, 0];
  for (let shift = 32 - RADIX_BITS; shift >= 0; shift -= RADIX_BITS) {
    counts.fill(0);
    sums.fill(0);
    for (let i = 0; i < keys.length; i++) {
      // In two steps: a shift by 32 bits would shift nothing.
      const digits = (keys[i] ?? 0) >>> shift;
      const digit = digits & (RADIX - 1);
      if (digits >>> RADIX_BITS !== prefix) continue;
      counts[digit] = (counts[digit] ?? 0) + 1;
      if (masses !== undefined) sums[digit] = (sums[digit] ?? 0) + (masses[i] ?? 0);
    }
    let digit = RADIX - 1;
    while (digit > 0 && !enough(count + (counts[digit] ?? 0), mass + (sums[digit] ?? 0), goal)) {
      count += counts[digit] ?? 0;
      mass += sums[digit] ?? 0;
      digit--;
    }
    prefix = prefix * RADIX + digit;
  }
  return prefix;
}
