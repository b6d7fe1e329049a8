/**
 * Numbers that look random and are the same in every run. Knows nothing of what they are used for.
 */

import { fromHalf, toHalf } from "../../kernels/half.ts";

/** A seeded stream of numbers (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A number in [0, 1). */
  uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number in [0, bound). */
  integer(bound: number): number {
    return Math.floor(this.uniform() * bound);
  }

  /** So many of them. */
  integers(count: number, bound: number): Uint32Array<ArrayBuffer> {
    return Uint32Array.from({ length: count }, () => this.integer(bound));
  }

  /** A number of the standard normal distribution (Box–Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Normally distributed f32 values with the given standard deviation. */
  normals(count: number, deviation = 1): Float32Array<ArrayBuffer> {
    return Float32Array.from({ length: count }, () => this.normal() * deviation);
  }

  /** The same, rounded to f16: the halves, and the f32 values that they stand for. */
  halves(count: number, deviation = 1): { halves: Uint16Array<ArrayBuffer>; values: Float32Array<ArrayBuffer> } {
    const halves = toHalf(this.normals(count, deviation));
    return { halves, values: fromHalf(halves) };
  }
}
