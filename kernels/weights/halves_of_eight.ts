/**
 * WGSL that makes halves of eight weights, two an instruction, for matrix units. An integer in the lower bits of the half 1024
 * is 1024 more than itself, exactly. Of types with one scale for each group, the product with the scale rounds as the f32
 * product does when it becomes a half; those with super-blocks round their scales (and minima) to halves before.
 */

import { hasMinimum, isQuantized, QUANTIZED, type QuantizedDType, type WeightDType } from "./format.ts";
import { decodeEight } from "./read_eight.ts";

/** Bits of two halves of value 1024. */
const MAGIC = "0x64006400u";

/**
 * Statements that store what `fetchEight` brought as eight halves, in a vec4<u32>. They need `HALF_PACKING_WGSL`, and the
 * feature f16.
 */
export function halvesOfEight(dtype: WeightDType, from: string, to: string): string {
  if (dtype === "f16") return `${to} = ${from}_q;`;
  if (!isQuantized(dtype)) {
    return `${decodeEight(dtype, from)}
    ${to} = packed(${from}_lo, ${from}_hi);`;
  }
  const pairs = [0, 1, 2, 3].map((pair) => `bitcast<u32>(${pairOf(dtype, from, pair)})`);
  return `${highOf(dtype, from)} ${scaleOf(dtype, from)}
    ${to} = vec4<u32>(${pairs.join(", ")});`;
}

/** The upper bits of this eight, in the lowest bits of each byte and above them. */
function highOf(dtype: QuantizedDType, from: string): string {
  const { highBits } = QUANTIZED[dtype];
  if (highBits === 0) return "";
  const step = highBits === 1 ? `2u * (${from}_i & 3u)` : `4u * (${from}_i & 1u)`;
  return `let ${from}_u = ${from}_h >> (${step});`;
}

/** `<from>_f`: the scale twice; `<from>_m`: what is added to the centred product, where there is a minimum. */
function scaleOf(dtype: QuantizedDType, from: string): string {
  const [i, s, d] = ["i", "s", "d"].map((suffix) => `${from}_${suffix}`);
  switch (dtype) {
    case "q8":
    case "q4":
    case "q5":
      return `let ${from}_f = vec2<f16>(f16(unpack2x16float(${s})[(${i} >> 2u) & 1u]));`;
    case "q4k":
    case "q5k":
      return `let ${from}_p = ${s} >> (((${i} >> 2u) & 1u) * 16u);
    let ${from}_fm = unpack2x16float(${d}) * vec2<f32>(f32(${from}_p & 0xffu), f32((${from}_p >> 8u) & 0xffu));
    let ${from}_f = vec2<f16>(f16(${from}_fm.x));
    let ${from}_m = vec2<f16>(f16(${centreOf(dtype)}.0 * ${from}_fm.x - ${from}_fm.y));`;
    case "q6k":
      return `let ${from}_f = vec2<f16>(f16(unpack2x16float(${d}).x * f32(extractBits(bitcast<i32>(${s}), ((${i} >> 1u) & 3u) * 8u, 8u))));`;
  }
}

/** Weights 2 · pair and 2 · pair + 1: they lie in the lower parts of the halves of a word, see `pack_groups.ts`. */
function pairOf(dtype: QuantizedDType, from: string, pair: number): string {
  const { quantaWords } = QUANTIZED[dtype];
  const halves = (bits: string, zero: number) =>
    `(bitcast<vec2<f16>>((${bits}) | ${MAGIC}) - vec2<f16>(${1024 + zero}.0h))`;
  if (quantaWords === 8) {
    // Bytes in two's complement become unsigned ones by their first bit.
    const word = `${from}_q.${pair % 2 === 0 ? "x" : "y"}`;
    return `${halves(`((${word} >> ${pair < 2 ? 0 : 8}u) & 0x00ff00ffu) ^ 0x00800080u`, 128)} * ${from}_f`;
  }
  const quanta = halves(`((${from}_q >> ${4 * pair}u) & 0x000f000fu)${upperBits(dtype, from, pair)}`, centreOf(dtype));
  return hasMinimum(dtype) ? `fma(${quanta}, ${from}_f, ${from}_m)` : `${quanta} * ${from}_f`;
}

/** What quanta are made smaller by. With a minimum it is the middle, where rounded scales and minima weigh least. */
function centreOf(dtype: QuantizedDType): number {
  const { highBits, zero } = QUANTIZED[dtype];
  return hasMinimum(dtype) ? 2 ** (3 + highBits) : zero;
}

function upperBits(dtype: QuantizedDType, from: string, pair: number): string {
  const { highBits } = QUANTIZED[dtype];
  if (highBits === 0) return "";
  const shift = 8 * Math.floor(pair / 2) + highBits * (pair % 2);
  return ` | (((${from}_u >> ${shift}u) & 0x000${2 ** highBits - 1}000${2 ** highBits - 1}u) << 4u)`;
}
