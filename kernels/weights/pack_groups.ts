/**
 * The kernel that fills quantised weights on the GPU from the bytes of a file: it rearranges the blocks of GGUF, or
 * quantises plain numbers. Every thread owns whole words of every plane, so that none waits for another.
 */

import { GpuError } from "../errors.ts";
import type { Commands, KernelSpec } from "../pipeline.ts";
import type { Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";
import { BLOCK_WGSL } from "./block_wgsl.ts";
import { GROUP, GROUPS_OF_BLOCK, isQuantized, planesOf, QUANTIZED, type QuantizedDType } from "./format.ts";
import { quantizingWgsl } from "./quantize_wgsl.ts";
import { BLOCKS, isBlockType, type SourceDType } from "./source_types.ts";
import type { WeightPart } from "./weight.ts";

/** Rows to be packed. */
export interface PackRows {
  /** The rows as a file has them, from the tensor's first byte on. */
  readonly raw: Tensor;
  readonly source: SourceDType;
  readonly part: WeightPart;
  readonly cols: number;
  /** Within the part. */
  readonly firstRow: number;
  readonly rows: number;
}

const THREADS = 64;

/**
 * Packs rows into a quantised part.
 * @throws {GpuError} `invalid_shape` when the source cannot become what the part is
 */
export function packRows(commands: Commands, { raw, source, part, cols, firstRow, rows }: PackRows): void {
  const { dtype } = part;
  if (!isQuantized(dtype) || !canPack(source, dtype)) {
    throw new GpuError("invalid_shape", `Cannot pack ${part.tensor.label}: ${source} cannot become ${dtype}`);
  }
  const { high, scales, blocks } = planesOf(dtype, part.rows * cols);
  const [firstGroup, groups] = [firstRow * cols / GROUP, rows * cols / GROUP];
  // A pair of groups shares a word of scales; a pair may begin before the first row, or end after the last.
  const unit = unitOf(dtype);
  const units = Math.ceil((firstGroup + groups) / unit) - Math.floor(firstGroup / unit);
  commands.dispatch(commands.kernel(`pack ${source} as ${dtype}`, () => spec(source, dtype)), {
    tensors: [raw, part.tensor],
    params: { firstGroup, groups, units, high, scales, blocks },
    groups: spread(Math.ceil(units / THREADS)),
  });
}

/** Plain numbers can be quantised to the types with one scale for each group. */
function canPack(source: SourceDType, dtype: QuantizedDType): boolean {
  return isBlockType(source) ? BLOCKS[source].keptAs === dtype : dtype === "q8" || dtype === "q4";
}

/** Groups that a thread packs. */
function unitOf(dtype: QuantizedDType): number {
  return QUANTIZED[dtype].scales === "group" ? 2 : GROUPS_OF_BLOCK;
}

function spec(source: SourceDType, dtype: QuantizedDType): KernelSpec {
  const { scales } = QUANTIZED[dtype];
  return {
    bindings: [reads("raw", "array<u32>"), writes("w", "array<u32>")],
    params: ["firstGroup", "groups", "units", "high", "scales", "blocks"].map((name) => [name, "u32"] as const),
    source: `
      fn byte_at(at: u32) -> u32 { return (raw[at / 4u] >> ((at % 4u) * 8u)) & 0xffu; }
      fn half_at(at: u32) -> u32 { return byte_at(at) | (byte_at(at + 1u) << 8u); }
      // The group in hand: its quanta, unsigned or in two's complement, and with one scale for each group that scale.
      var<private> quanta: array<u32, ${GROUP}>;
      ${isBlockType(source) ? BLOCK_WGSL[source] : quantizingWgsl(source, dtype)}
      ${storeQuanta(dtype)}
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let unit = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (unit >= params.units) { return; }
        ${scales === "group" ? packPair() : packBlock(dtype)}
      }`,
  };
}

function packPair(): string {
  return `let pair = params.firstGroup / 2u + unit;
        var word = w[params.scales + pair];
        for (var side = 0u; side < 2u; side += 1u) {
          let group = 2u * pair + side;
          if (group >= params.firstGroup && group < params.firstGroup + params.groups) {
            word = insertBits(word, read_group(group - params.firstGroup), side * 16u, 16u);
            store_quanta(group);
          }
        }
        w[params.scales + pair] = word;`;
}

function packBlock(dtype: QuantizedDType): string {
  const { bytes } = Object.values(BLOCKS).find(({ keptAs }) => keptAs === dtype) ?? { bytes: 0 };
  return `let block = params.firstGroup / ${GROUPS_OF_BLOCK}u + unit;
        let at = unit * ${bytes}u;
        for (var pair = 0u; pair < ${GROUPS_OF_BLOCK / 2}u; pair += 1u) {
          var word = 0u;
          for (var side = 0u; side < 2u; side += 1u) {
            let group = 2u * pair + side;
            word = insertBits(word, read_group(at, group), side * 16u, 16u);
            store_quanta(block * ${GROUPS_OF_BLOCK}u + group);
          }
          w[params.scales + block * ${GROUPS_OF_BLOCK / 2}u + pair] = word;
        }
        w[params.blocks + block] = block_scales(at);`;
}

/**
 * The layout that `read_eight.ts`, `halves_of_eight.ts` and `dot_groups.ts` read. Of an eight in four bits each, weight j lies at
 * bit 16 · (j % 2) + 4 · (j / 2) of a word, so that pairs of neighbours become halves by one mask; bytes of 8-bit types are in the
 * order that the bytes of the two masked words then have, 0 4 1 5 and 2 6 3 7. Upper bits follow the lower ones: byte for byte, in
 * slots of one or two bits.
 */
function storeQuanta(dtype: QuantizedDType): string {
  const { quantaWords, highBits } = QUANTIZED[dtype];
  if (quantaWords === 8) {
    return `fn store_quanta(group: u32) {
        for (var i = 0u; i < 8u; i += 1u) {
          var word = 0u;
          for (var j = 0u; j < 4u; j += 1u) { word |= (quanta[4u * (i & 6u) + 2u * (i & 1u) + (j >> 1u) + 4u * (j & 1u)] & 0xffu) << (8u * j); }
          w[8u * group + i] = word;
        }
      }`;
  }
  const wordsOfHigh = highBits;
  return `fn store_quanta(group: u32) {
        for (var e = 0u; e < 4u; e += 1u) {
          var word = 0u;
          for (var j = 0u; j < 8u; j += 1u) { word |= (quanta[8u * e + j] & 15u) << (16u * (j & 1u) + 4u * (j >> 1u)); }
          w[4u * group + e] = word;
        }
        ${
    highBits === 0 ? "" : `
        for (var i = 0u; i < ${wordsOfHigh}u; i += 1u) {
          var word = 0u;
          for (var q = 0u; q < ${GROUP / highBits}u; q += 1u) {
            let j = q % 8u;
            let slot = 2u * (q / 8u) + (j >> 1u) % 2u;
            word |= (quanta[i * ${
      GROUP / highBits
    }u + q] >> 4u) << (16u * (j & 1u) + 8u * (j >> 2u) + ${highBits}u * slot);
          }
          w[params.high + ${wordsOfHigh}u * group + i] = word;
        }`
  }
      }`;
}
