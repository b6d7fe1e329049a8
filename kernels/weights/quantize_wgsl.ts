/**
 * WGSL that quantises plain numbers, in groups of 32 with one f16 scale. `read_group(group) -> u32` fills `quanta` and
 * returns the bits of the scale, like those of `block_wgsl.ts`.
 */

import { GROUP, type QuantizedDType } from "./format.ts";
import type { PlainDType } from "./source_types.ts";

/** How a number lies in a file, little-endian. */
const NUMBER: Readonly<Record<PlainDType, string>> = {
  F32: "bitcast<f32>(raw[i])",
  F16: "unpack2x16float(raw[i / 2u])[i % 2u]",
  BF16: "bitcast<f32>(((raw[i / 2u] >> ((i % 2u) * 16u)) & 0xffffu) << 16u)",
};

/** The largest magnitude becomes ±127, before the scale is rounded to f16. */
const EIGHT_BITS = `
        let scale_bits = pack2x16float(vec2<f32>(abs(extreme) / 127.0, 0.0));
        let scale = unpack2x16float(scale_bits).x;
        for (var j = 0u; j < ${GROUP}u; j += 1u) {
          let quantum = select(0.0, clamp(round(values[j] / scale), -127.0, 127.0), scale > 0.0);
          quanta[j] = u32(i32(quantum));
        }
        return scale_bits;`;

/**
 * The number of largest magnitude becomes about −8. Of a few scales around that, each improved by least squares, the one
 * that leaves the smallest squared error is taken: Σvq² / Σq² is what it takes away from Σv².
 */
const FOUR_BITS = `
        var best = 0.0;
        var scale = 0.0;
        for (var step = 0u; step < 19u; step += 1u) {
          let inverse = select(0.0, -(7.1 + 0.1 * f32(step)) / extreme, extreme != 0.0);
          var products = 0.0;
          var squares = 0.0;
          for (var j = 0u; j < ${GROUP}u; j += 1u) {
            let quantum = clamp(round(values[j] * inverse), -8.0, 7.0);
            products += values[j] * quantum;
            squares += quantum * quantum;
          }
          if (squares > 0.0 && products * products > best * squares) {
            best = products * products / squares;
            scale = products / squares;
          }
        }
        let scale_bits = pack2x16float(vec2<f32>(scale, 0.0));
        let rounded = unpack2x16float(scale_bits).x;
        for (var j = 0u; j < ${GROUP}u; j += 1u) {
          let quantum = select(0.0, clamp(round(values[j] / rounded), -8.0, 7.0), rounded != 0.0);
          quanta[j] = u32(i32(quantum) + 8);
        }
        return scale_bits;`;

/** The reader for numbers of a type. */
export function quantizingWgsl(source: PlainDType, dtype: QuantizedDType): string {
  return `fn number_at(i: u32) -> f32 { return ${NUMBER[source]}; }
      fn read_group(group: u32) -> u32 {
        var values: array<f32, ${GROUP}>;
        // The number of largest magnitude, with its sign.
        var extreme = 0.0;
        for (var j = 0u; j < ${GROUP}u; j += 1u) {
          values[j] = number_at(group * ${GROUP}u + j);
          if (abs(values[j]) > abs(extreme)) { extreme = values[j]; }
        }
        ${dtype === "q8" ? EIGHT_BITS : FOUR_BITS}
      }`;
}
