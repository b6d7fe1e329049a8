/**
 * Rows as integers, for products with quantised weights: a group of 32 values is 32 integers of 16 bits times a power of two,
 * and each integer two digits of 8 bits, so that four of them are multiplied and added by one instruction. The largest of a group
 * is 16,320 or more, so that rounding makes a squared error below 1e-9 of the row's square; rows or weights rounded to f16 make
 * twenty times as much. Products and sums within a group are exact, in any order, and scaling by a power of two rounds nothing:
 * digits are the same whichever kernel makes them.
 */

import { GROUP } from "./weights/format.ts";

/** Vectors of four words for a group: 16 bytes of each digit twice, then scale, sum, and sum of the first half. */
export const DIGIT_VECTORS = 5;

/** Consecutive threads that share a group, four values each. */
export const DIGIT_LANES = GROUP / 4;

/** Words of a row. */
export function digitWords(cols: number): number {
  return 4 * DIGIT_VECTORS * cols / GROUP;
}

/** The largest integer whose upper digit is a signed byte when its lower one is rounded away: 127 · 256 + 127. */
const LARGEST = 32639;

/** A vector that is found by the row's and the group's index: vectors of a kind lie together. */
export function digitVector({ row, vector, group, groups }: DigitPlace): string {
  return `(${row} * ${DIGIT_VECTORS}u + ${vector}) * ${groups} + ${group}`;
}

/** WGSL expressions of a vector's place. */
export interface DigitPlace {
  readonly row: string;
  readonly vector: string;
  readonly group: string;
  readonly groups: string;
}

/** WGSL that `storeDigits` needs; the kernel needs the feature subgroups. */
export const DIGITS_WGSL = /* wgsl */ `
// Of the power of two that the largest value lies above; from 255 / 128 of it on of the next one, as ${LARGEST} is less than 2 ** 15.
fn exponent_of(most: f32) -> u32 { return clamp((bitcast<u32>(most) + 0x10000u) >> 23u, 15u, 254u); }
fn integers_of(value: vec4<f32>, exponent: u32) -> vec4<i32> {
  let bound = vec4<f32>(${LARGEST}.0);
  return vec4<i32>(round(clamp(value * bitcast<f32>((268u - exponent) << 23u), -bound, bound)));
}
fn scale_of(exponent: u32) -> u32 { return (exponent - 14u) << 23u; }
fn bytes_of(v: vec4<i32>) -> u32 {
  let b = vec4<u32>(v) & vec4<u32>(0xffu);
  return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}
// The lower two bytes, or the upper two, as the even bytes of a word.
fn apart(bytes: u32, isOdd: bool) -> u32 {
  let two = select(bytes, bytes >> 16u, isOdd);
  return (two & 0xffu) | ((two & 0xff00u) << 8u);
}
// Of an eight, 0 4 1 5 to the first thread and 2 6 3 7 to the second: the order in which a mask finds quanta in a word of weights.
fn alternating(own: u32, other: u32, isOdd: bool) -> u32 {
  return apart(select(own, other, isOdd), isOdd) | (apart(select(other, own, isOdd), isOdd) << 8u);
}
`;

/** WGSL expressions of what a thread stores: all threads of a subgroup do so together, eight to a group. */
export interface StoredDigits {
  /** A vec4<f32>. */
  readonly value: string;
  /** The thread's index among those of its group. */
  readonly lane: string;
  readonly place: Omit<DigitPlace, "vector">;
  /** Whether the thread's values exist; where not, they must be zero. @default they do */
  readonly exists?: string;
}

/** Statements that store the digits of four values to a binding of words; in control flow that is the same for a subgroup. */
export function storeDigits(to: string, { value, lane, place, exists = "true" }: StoredDigits): string {
  const word = (vector: string, component: string) =>
    `${to}[4u * (${digitVector({ ...place, vector })}) + ${component}]`;
  const over = (name: string, lanes: readonly number[], join: (other: string) => string) =>
    lanes.map((n) => `${name} = ${join(`subgroupShuffleXor(${name}, ${n}u)`)};`).join(" ");
  return /* wgsl */ `{
          let four = ${value};
          let sizes = abs(four);
          var most = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
          ${over("most", [1, 2, 4], (other) => `max(most, ${other})`)}
          let exponent = exponent_of(most);
          let integers = integers_of(four, exponent);
          var half = integers.x + integers.y + integers.z + integers.w;
          ${over("half", [1, 2], (other) => `half + ${other}`)}
          let whole = half + subgroupShuffleXor(half, 4u);
          let upper = (integers + 128) >> vec4<u32>(8u);
          let high = bytes_of(upper);
          let low = bytes_of(integers - upper * 256);
          let lane = ${lane};
          let isOdd = (lane & 1u) == 1u;
          let highWord = alternating(high, subgroupShuffleXor(high, 1u), isOdd);
          let lowWord = alternating(low, subgroupShuffleXor(low, 1u), isOdd);
          if (${exists}) {
            ${word("lane / 4u", "lane % 4u")} = highWord;
            ${word("(2u + lane / 4u)", "lane % 4u")} = lowWord;
            if (lane == 0u) {
              ${word("4u", "0u")} = scale_of(exponent);
              ${word("4u", "1u")} = u32(whole);
              ${word("4u", "2u")} = u32(half);
            }
          }
        }`;
}
