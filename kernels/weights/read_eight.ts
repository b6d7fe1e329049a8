/**
 * WGSL that reads weights, eight at a time, in any format, and decodes them to f32; `halves_of_eight.ts` makes halves of them, and
 * `dot_groups.ts` multiplies integers as they are. What is read has the value of the file's own definition to the last bit:
 * products of scales and quanta are exact in f32, and the one difference that rounds is the same however a compiler contracts it.
 */

import { isQuantized, QUANTIZED, type QuantizedDType, type WeightDType } from "./format.ts";
import { planeExpressions } from "./planes_wgsl.ts";

/** Where to read, and what the results are called. */
export interface ReadEight {
  /** Prefix of all names. */
  readonly into: string;
  /** WGSL expression: which group of eight of the part. */
  readonly index: string;
}

/** A value as it lies in storage. */
interface Raw {
  readonly name: string;
  readonly type: string;
  readonly value: string;
}

/** The store type of a weight's binding; f16 comes eight in a vec4<u32>, which needs no device feature. */
export function weightType(dtype: WeightDType): string {
  return dtype === "f32" ? "array<vec4<f32>>" : "array<vec4<u32>>";
}

/**
 * Statements that read eight consecutive weights as two vec4<f32>, `<into>_lo` and `<into>_hi`. Of a quantised weight,
 * the kernel's parameters `partRows` and `eights` say where the planes lie.
 */
export function readEight(dtype: WeightDType, from: string, { into, index }: ReadEight): string {
  const fetch = rawOf(dtype, from, { into, index: `${into}_i` }).map(({ name, value }) => `let ${name} = ${value};`);
  return `let ${into}_i = ${index}; ${fetch.join(" ")}
    ${decodeEight(dtype, into)}`;
}

/** Variables for `fetchEight`, for kernels that ask for weights before they need them. */
export function declareEight(dtype: WeightDType, into: string): string {
  const raw = rawOf(dtype, "", { into, index: "" }).map(({ name, type }) => `var ${name}: ${type};`);
  return `var ${into}_i: u32; ${raw.join(" ")}`;
}

/** Statements that fill those variables from storage. */
export function fetchEight(dtype: WeightDType, from: string, { into, index }: ReadEight): string {
  const raw = rawOf(dtype, from, { into, index: `${into}_i` }).map(({ name, value }) => `${name} = ${value};`);
  return `${into}_i = ${index}; ${raw.join(" ")}`;
}

/** Statements that make `<into>_lo` and `<into>_hi` of what `fetchEight` brought. */
export function decodeEight(dtype: WeightDType, into: string): string {
  if (isQuantized(dtype)) return decodeQuantized(dtype, into);
  if (dtype === "f32") return `let ${into}_lo = ${into}_a; let ${into}_hi = ${into}_b;`;
  return `let ${into}_lo = vec4<f32>(unpack2x16float(${into}_q.x), unpack2x16float(${into}_q.y));
    let ${into}_hi = vec4<f32>(unpack2x16float(${into}_q.z), unpack2x16float(${into}_q.w));`;
}

function rawOf(dtype: WeightDType, from: string, { into, index: i }: ReadEight): readonly Raw[] {
  const raw = (suffix: string, type: string, value: string): Raw => ({ name: `${into}_${suffix}`, type, value });
  if (dtype === "f32") {
    return [
      raw("a", "vec4<f32>", `${from}[2u * ${i}]`),
      raw("b", "vec4<f32>", `${from}[2u * ${i} + 1u]`),
    ];
  }
  if (dtype === "f16") return [raw("q", "vec4<u32>", `${from}[${i}]`)];
  const { quantaWords, highBits, scales } = QUANTIZED[dtype];
  const plane = planeExpressions(dtype);
  return [
    quantaWords === 8
      ? raw("q", "vec2<u32>", `select(${from}[${i} >> 1u].xy, ${from}[${i} >> 1u].zw, (${i} & 1u) == 1u)`)
      : raw("q", "u32", `${from}[${i} >> 2u][${i} & 3u]`),
    ...(highBits === 1 ? [raw("h", "u32", `${from}[${plane.high} + (${i} >> 4u)][(${i} >> 2u) & 3u]`)] : []),
    ...(highBits === 2 ? [raw("h", "u32", `${from}[${plane.high} + (${i} >> 3u)][(${i} >> 1u) & 3u]`)] : []),
    raw("s", "u32", `${from}[${plane.scales} + (${i} >> 5u)][(${i} >> 3u) & 3u]`),
    ...(scales === "block" ? [raw("d", "u32", `${from}[${plane.blocks} + (${i} >> 7u)][(${i} >> 5u) & 3u]`)] : []),
  ];
}

function decodeQuantized(dtype: QuantizedDType, into: string): string {
  const [i, q, s, d] = ["i", "q", "s", "d"].map((suffix) => `${into}_${suffix}`);
  const quanta = (half: "lo" | "hi") => `vec4<f32>(${quantaOf(into, half)})`;
  const centred = (half: "lo" | "hi") => {
    const { zero } = QUANTIZED[dtype];
    return zero === 0 ? quanta(half) : `(${quanta(half)} - ${zero}.0)`;
  };
  switch (dtype) {
    case "q8":
      return `let ${into}_f = unpack2x16float(${s})[(${i} >> 2u) & 1u];
    let ${into}_b0 = unpack4xI8(${q}.x); let ${into}_b1 = unpack4xI8(${q}.y);
    let ${into}_lo = ${into}_f * vec4<f32>(vec4<i32>(${into}_b0.xz, ${into}_b1.xz));
    let ${into}_hi = ${into}_f * vec4<f32>(vec4<i32>(${into}_b0.yw, ${into}_b1.yw));`;
    case "q4":
    case "q5":
      return `${bytesOf(dtype, into)} let ${into}_f = unpack2x16float(${s})[(${i} >> 2u) & 1u];
    let ${into}_lo = ${into}_f * ${centred("lo")};
    let ${into}_hi = ${into}_f * ${centred("hi")};`;
    case "q4k":
    case "q5k":
      return `${bytesOf(dtype, into)} let ${into}_p = ${s} >> (((${i} >> 2u) & 1u) * 16u);
    let ${into}_f = unpack2x16float(${d}) * vec2<f32>(f32(${into}_p & 0xffu), f32((${into}_p >> 8u) & 0xffu));
    let ${into}_lo = ${into}_f.x * ${quanta("lo")} - ${into}_f.y;
    let ${into}_hi = ${into}_f.x * ${quanta("hi")} - ${into}_f.y;`;
    case "q6k":
      return `${
        bytesOf(dtype, into)
      } let ${into}_f = unpack2x16float(${d}).x * f32(extractBits(bitcast<i32>(${s}), ((${i} >> 1u) & 3u) * 8u, 8u));
    let ${into}_lo = ${into}_f * ${centred("lo")};
    let ${into}_hi = ${into}_f * ${centred("hi")};`;
  }
}

/** Four weights of an eight as a vec4<u32> of quanta: `storeQuanta` in `pack_groups.ts` says where each of them lies. */
function quantaOf(into: string, half: "lo" | "hi"): string {
  const [even, odd] = half === "lo" ? ["x", "z"] : ["y", "w"];
  return `vec4<u32>(${into}_b0.${even}, ${into}_b0.${odd}, ${into}_b1.${even}, ${into}_b1.${odd})`;
}

/** `<into>_b0`, `<into>_b1`: the quanta of the lower halves of a word's bytes, and of the upper ones. */
function bytesOf(dtype: QuantizedDType, into: string): string {
  return `let ${into}_b0 = unpack4xU8(${halfBytes(dtype, into, 0)}); let ${into}_b1 = unpack4xU8(${
    halfBytes(dtype, into, 1)
  });`;
}

function halfBytes(dtype: QuantizedDType, into: string, half: 0 | 1): string {
  const { highBits } = QUANTIZED[dtype];
  const low = half === 0 ? `${into}_q & 0x0f0f0f0fu` : `(${into}_q >> 4u) & 0x0f0f0f0fu`;
  const above = half === 0 ? "" : ` + ${highBits}u`;
  switch (highBits) {
    case 0:
      return low;
    case 1:
      return `(${low}) | (((${into}_h >> (2u * (${into}_i & 3u)${above})) & 0x01010101u) << 4u)`;
    case 2:
      return `(${low}) | (((${into}_h >> (4u * (${into}_i & 1u)${above})) & 0x03030303u) << 4u)`;
  }
}
