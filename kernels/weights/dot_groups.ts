/**
 * WGSL of products of quantised weights with rows of digits (see `digits.ts`), a group of 32 weights at a time: quanta and digits
 * are multiplied and added as integers, four an instruction and exactly, and what comes out is multiplied once by both scales.
 */

import { DIGIT_VECTORS, digitVector } from "../digits.ts";
import { component, unroll } from "../wgsl.ts";
import { hasMinimum, QUANTIZED, type QuantizedDType } from "./format.ts";
import { planeExpressions } from "./planes_wgsl.ts";

/** Where a group lies, and what it is called. */
export interface FetchedGroup {
  readonly into: string;
  /** WGSL expression: which group of the part. */
  readonly index: string;
}

/** Statements that read a group of weights from a binding of vec4<u32>, named by a prefix. */
export function fetchGroup(dtype: QuantizedDType, from: string, { into, index }: FetchedGroup): string {
  const { quantaWords, highBits, scales } = QUANTIZED[dtype];
  const plane = planeExpressions(dtype);
  const i = `${into}_i`;
  /** A word of a plane, without the vector around it. */
  const word = (plane: string, at: string) => `${from}[${plane} + ((${at}) >> 2u)][(${at}) & 3u]`;
  return [
    `let ${i} = ${index};`,
    quantaWords === 8
      ? `let ${into}_q = ${from}[2u * ${i}]; let ${into}_r = ${from}[2u * ${i} + 1u];`
      : `let ${into}_q = ${from}[${i}];`,
    ...(highBits === 1 ? [`let ${into}_h = ${word(plane.high, i)};`] : []),
    ...(highBits === 2
      ? [`let ${into}_h = vec2<u32>(${word(plane.high, `2u * ${i}`)}, ${word(plane.high, `2u * ${i} + 1u`)});`]
      : []),
    `let ${into}_s = ${word(plane.scales, `${i} >> 1u`)};`,
    ...(scales === "block" ? [`let ${into}_d = ${word(plane.blocks, `${i} >> 3u`)};`] : []),
  ].join(" ");
}

/** Groups of several rows of weights, and what they are multiplied by. */
export interface GroupProducts {
  /** Prefixes of what `fetchGroup` read. */
  readonly groups: readonly string[];
  /** The binding of rows of digits, and WGSL of the row of each input, of the group and of the number of groups in a row. */
  readonly from: string;
  readonly rows: readonly string[];
  readonly group: string;
  readonly groupsOfRow: string;
  /** The name of the sum of an input and a group. */
  readonly sum: (input: number, group: number) => string;
}

/** Statements that add the products of groups to sums. */
export function addGroups(dtype: QuantizedDType, products: GroupProducts): string {
  const { groups, rows, from, group, groupsOfRow } = products;
  const vector = (row: string, n: number) =>
    `${from}[${digitVector({ row, vector: `${n}u`, group, groups: groupsOfRow })}]`;
  const one = (row: string, input: number) =>
    `{
          ${unroll(DIGIT_VECTORS, (n) => `let d${n} = ${vector(row, n)};`)}
          let unit = bitcast<f32>(d4.x);
          ${groups.map((name, n) => addGroup(dtype, name, products.sum(input, n))).join("\n")}
        }`;
  return `${groups.map((name) => `${scaleStatements(dtype, name)} ${quantaStatements(dtype, name)}`).join("\n")}
        ${rows.map(one).join("\n")}`;
}

/** `<name>_f`, or two of them where halves of a group have scales of their own, and `<name>_m` where there is a minimum. */
function scaleStatements(dtype: QuantizedDType, name: string): string {
  const [i, s, d] = ["i", "s", "d"].map((suffix) => `${name}_${suffix}`);
  switch (dtype) {
    case "q8":
    case "q4":
    case "q5":
      return `let ${name}_f = unpack2x16float(${s})[${i} & 1u];`;
    case "q4k":
    case "q5k":
      return `let ${name}_p = ${s} >> ((${i} & 1u) * 16u);
        let ${name}_b = unpack2x16float(${d}) * vec2<f32>(f32(${name}_p & 0xffu), f32((${name}_p >> 8u) & 0xffu));
        let ${name}_f = ${name}_b.x; let ${name}_m = ${name}_b.y;`;
    case "q6k":
      return `let ${name}_p = bitcast<i32>(${s} >> ((${i} & 1u) * 16u)); let ${name}_b = unpack2x16float(${d}).x;
        let ${name}_f = ${name}_b * f32(extractBits(${name}_p, 0u, 8u));
        let ${name}_g = ${name}_b * f32(extractBits(${name}_p, 8u, 8u));`;
  }
}

/** `<name>_w0` … `<name>_w7`: bytes of quanta, in the order in which `pack_groups.ts` has them: 0 4 1 5, 2 6 3 7 of each eight. */
function quantaStatements(dtype: QuantizedDType, name: string): string {
  const { quantaWords, highBits } = QUANTIZED[dtype];
  return unroll(8, (w) => {
    const [eight, half] = [w >> 1, w & 1];
    if (quantaWords === 8) return `let ${name}_w${w} = ${name}_${w < 4 ? "q" : "r"}.${component(w)};`;
    const low = `(${name}_q.${component(eight)}${half === 0 ? "" : " >> 4u"}) & 0x0f0f0f0fu`;
    return `let ${name}_w${w} = ${highBits === 0 ? low : `(${low}) | (${upperBits(dtype, name, w)} << 4u)`};`;
  });
}

function upperBits(dtype: QuantizedDType, name: string, word: number): string {
  if (QUANTIZED[dtype].highBits === 1) return `((${name}_h >> ${word}u) & 0x01010101u)`;
  return `((${name}_h.${word < 4 ? "x" : "y"} >> ${2 * (word % 4)}u) & 0x03030303u)`;
}

/** The digits of an input as `d0` … `d3`, its scale and sums in `d4`. */
function addGroup(dtype: QuantizedDType, name: string, sum: string): string {
  const digit = (which: 0 | 1, word: number) => `d${2 * which + (word >> 2)}.${component(word)}`;
  const dots = (which: 0 | 1, first: number, count: number) =>
    unroll(count, (n) => `digit${which} += dot4I8Packed(${name}_w${first + n}, ${digit(which, first + n)});`);
  const { zero } = QUANTIZED[dtype];
  /** Of integers: less what quanta are more than they stand for. */
  const whole = (first: number, count: number, all: string) =>
    `var digit0 = 0; var digit1 = 0;
            ${dots(0, first, count)} ${dots(1, first, count)}
            let whole = digit0 * 256 + digit1${zero === 0 ? "" : ` - ${zero} * (${all})`};`;
  const sums = "bitcast<i32>(d4.y)";
  if (dtype === "q6k") {
    const half = "bitcast<i32>(d4.z)";
    return `{ ${whole(0, 4, half)} ${sum} = fma(${name}_f * unit, f32(whole), ${sum}); }
          { ${whole(4, 4, `${sums} - ${half}`)} ${sum} = fma(${name}_g * unit, f32(whole), ${sum}); }`;
  }
  return `{ ${whole(0, 8, sums)} ${sum} = fma(${name}_f * unit, f32(whole), ${sum});
          ${hasMinimum(dtype) ? `${sum} = fma(-${name}_m * unit, f32(${sums}), ${sum});` : ""} }`;
}
