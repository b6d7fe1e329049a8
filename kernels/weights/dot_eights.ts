/**
 * WGSL of products of quantised weights with rows of inputs, eight weights at a time: the quanta are multiplied as integers that
 * became f32, and their scale is multiplied once. A quantum in the lower bits of a large enough power of two is that much more
 * than itself, exactly: one subtraction makes a number of it, where a conversion and a product with the scale took three.
 */

import { component, unroll } from "../wgsl.ts";
import { hasMinimum, QUANTIZED, type QuantizedDType } from "./format.ts";
import { planeExpressions } from "./planes_wgsl.ts";

/** The store type of the binding that `fetchQuanta` reads: no wider than what it needs at a time. */
export const QUANTA_TYPE = "array<vec2<u32>>";

/** Where an eight lies, and what it is called. */
export interface EightPlace {
  readonly into: string;
  /** WGSL expression: which eight of the part. */
  readonly index: string;
}

/** Statements that read an eight, named by a prefix. */
export function fetchQuanta(dtype: QuantizedDType, from: string, { into, index }: EightPlace): string {
  const { quantaWords, highBits, scales } = QUANTIZED[dtype];
  const plane = planeExpressions(dtype);
  const i = `${into}_i`;
  // Planes begin at multiples of 16 bytes.
  const word = (suffix: string, plane: string, at: string) =>
    `let ${into}_${suffix} = ${from}[2u * (${plane}) + ((${at}) >> 1u)][(${at}) & 1u];`;
  return [
    `let ${i} = ${index};`,
    quantaWords === 8 ? `let ${into}_q = ${from}[${i}];` : `let ${into}_q = ${from}[${i} >> 1u][${i} & 1u];`,
    ...(highBits === 0 ? [] : [word("h", plane.high, `${i} >> ${highBits === 1 ? 2 : 1}u`)]),
    word("s", plane.scales, `${i} >> 3u`),
    ...(scales === "block" ? [word("d", plane.blocks, `${i} >> 5u`)] : []),
  ].join(" ");
}

/** Eights of several rows of weights, and what they are multiplied by. */
export interface EightProducts {
  /** Prefixes of what `fetchQuanta` read. */
  readonly eights: readonly string[];
  /** Rows of inputs. */
  readonly inputs: number;
  /** WGSL of the first or the second four of an input. */
  readonly input: (input: number, four: 0 | 1) => string;
  /** The name of the sum of an input and an eight. */
  readonly sum: (input: number, eight: number) => string;
}

/** Statements that add the products of eights to sums, each in ascending k and then times its scale. */
export function addEights(dtype: QuantizedDType, { eights, inputs, input, sum }: EightProducts): string {
  const isCentred = !hasMinimum(dtype);
  const read = (m: number) =>
    `let lo${m} = ${input(m, 0)}; let hi${m} = ${input(m, 1)};
        ${isCentred ? "" : `let all${m} = dot(lo${m} + hi${m}, vec4<f32>(1.0));`}`;
  const one = (eight: string, n: number) => {
    const { words, quanta } = wordsOf(dtype, eight);
    const add = (quantum: Quantum, j: number) =>
      `{ let quantum = ${numberOf(quantum)}; ${
        unroll(inputs, (m) => `part${m} = fma(quantum, ${j < 4 ? "lo" : "hi"}${m}.${component(j)}, part${m});`)
      } }`;
    return `{
        ${scaleStatements(dtype, eight)}
        ${words}
        ${unroll(inputs, (m) => `var part${m} = 0.0;`)}
        ${quanta.map(add).join("\n")}
        ${
      unroll(inputs, (m) =>
        isCentred
          ? `${sum(m, n)} = fma(scale, part${m}, ${sum(m, n)});`
          : `${sum(m, n)} = fma(-minimum, all${m}, fma(scale, part${m}, ${sum(m, n)}));`)
    }
      }`;
  };
  return `${unroll(inputs, read)}
      ${eights.map(one).join("\n")}`;
}

/** `scale`, and `minimum` where there is one. */
function scaleStatements(dtype: QuantizedDType, eight: string): string {
  const [i, s, d] = ["i", "s", "d"].map((suffix) => `${eight}_${suffix}`);
  switch (dtype) {
    case "q8":
    case "q4":
    case "q5":
      return `let scale = unpack2x16float(${s})[(${i} >> 2u) & 1u];`;
    case "q4k":
    case "q5k":
      return `let bits = ${s} >> (((${i} >> 2u) & 1u) * 16u); let block = unpack2x16float(${d});
        let scale = block.x * f32(bits & 0xffu); let minimum = block.y * f32((bits >> 8u) & 0xffu);`;
    case "q6k":
      return `let scale = unpack2x16float(${d}).x *
          f32(extractBits(bitcast<i32>(${s}), ((${i} >> 1u) & 3u) * 8u, 8u));`;
  }
}

/** Of an f32: the bits below a power of two. */
const FRACTION_BITS = 23;

/** An unsigned quantum within a word. */
interface Quantum {
  readonly word: string;
  readonly bit: number;
  readonly bits: number;
  /** What it is more than what it stands for. */
  readonly zero: number;
}

function numberOf({ word, bit, bits, zero }: Quantum): string {
  const mask = ((2 ** bits - 1) << bit) >>> 0;
  // The lowest bit of the quantum is worth 1 where the power is 2 ** (23 - bit).
  const power = (127 + FRACTION_BITS - bit) * 2 ** FRACTION_BITS;
  return `bitcast<f32>((${word} & 0x${mask.toString(16)}u) | 0x${power.toString(16)}u) - ${
    2 ** (FRACTION_BITS - bit) + zero
  }.0`;
}

interface Words {
  /** Statements. */
  readonly words: string;
  readonly quanta: readonly Quantum[];
}

/** Where the quanta of an eight lie: see `storeQuanta` in `pack_groups.ts`. */
function wordsOf(dtype: QuantizedDType, eight: string): Words {
  const { quantaWords, highBits, zero } = QUANTIZED[dtype];
  if (quantaWords === 8) return bytesOf(eight);
  if (highBits === 0) {
    return {
      words: `let a = ${eight}_q; let b = a >> 12u;`,
      quanta: eightOf((j) => placed(["a", "b"], 12, { bit: 16 * (j % 2) + 4 * (j >> 1), bits: 4, zero })),
    };
  }
  const [eightsOfWord, mask] = highBits === 1 ? [4, "0x01010101u"] : [2, "0x03030303u"];
  const half = (shift: number) =>
    `((${eight}_q >> ${4 * shift}u) & 0x0f0f0f0fu) | (((high >> ${highBits * shift}u) & ${mask}) << 4u)`;
  return {
    words: `let high = ${eight}_h >> (${2 * highBits}u * (${eight}_i & ${eightsOfWord - 1}u));
        let a = ${half(0)}; let b = ${half(1)}; let c = a >> 8u; let d = b >> 8u;`,
    quanta: eightOf((j) => {
      const names = (j >> 1) % 2 === 0 ? ["a", "c"] as const : ["b", "d"] as const;
      return placed(names, 8, { bit: 16 * (j % 2) + 8 * (j >> 2), bits: 4 + highBits, zero });
    }),
  };
}

/** Bytes in two's complement become unsigned ones by their first bit. */
function bytesOf(eight: string): Words {
  const word = (i: "x" | "y") => `(${eight}_q.${i} ^ 0x80808080u)`;
  return {
    words: `let a = ${word("x")}; let b = a >> 16u; let c = ${word("y")}; let d = c >> 16u;`,
    quanta: eightOf((j) => {
      const names = j < 4 ? ["a", "b"] as const : ["c", "d"] as const;
      return placed(names, 16, { bit: 16 * (j % 2) + 8 * (Math.floor(j / 2) % 2), bits: 8, zero: 128 });
    }),
  };
}

function eightOf(quantum: (j: number) => Quantum): readonly Quantum[] {
  return Array.from({ length: 8 }, (_, j) => quantum(j));
}

/** A quantum in a word, or where it would leave the fraction, in the same word shifted. */
function placed(
  [word, shifted]: readonly [word: string, shifted: string],
  shift: number,
  { bit, bits, zero }: Omit<Quantum, "word">,
): Quantum {
  return bit + bits <= FRACTION_BITS ? { word, bit, bits, zero } : { word: shifted, bit: bit - shift, bits, zero };
}
