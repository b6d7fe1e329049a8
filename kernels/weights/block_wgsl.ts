/**
 * WGSL that reads the blocks of GGUF. For types with a scale for each group, `read_group(group) -> u32` fills `quanta` and
 * returns the bits of the scale; for super-blocks, `read_group(at, group) -> u32` returns the two bytes of scales of one
 * of its groups, and `block_scales(at) -> u32` the word of the super-block. Layouts: ggml's, as GGUF defines them.
 */

import { GROUP } from "./format.ts";
import { type BlockDType, BLOCKS } from "./source_types.ts";

/** A group of 32 that begins with its scale. */
function groupReader(source: BlockDType, quantum: string): string {
  return `fn read_group(group: u32) -> u32 {
        let at = group * ${BLOCKS[source].bytes}u;
        for (var j = 0u; j < ${GROUP}u; j += 1u) { quanta[j] = ${quantum}; }
        return half_at(at);
      }`;
}

function blockReader(quantum: string, { scales, block }: { readonly scales: string; readonly block: string }): string {
  return `fn read_group(at: u32, group: u32) -> u32 {
        for (var j = 0u; j < ${GROUP}u; j += 1u) { quanta[j] = ${quantum}; }
        return ${scales};
      }
      fn block_scales(at: u32) -> u32 { return ${block}; }`;
}

/** The first half of a group in the lower nibbles of 16 bytes, the second half in the upper ones. */
function halvedNibbles(offset: number): string {
  return `(byte_at(at + ${offset}u + j % 16u) >> (4u * (j / 16u))) & 15u`;
}

/** Pairs of groups share 32 bytes: the even one has the lower nibbles. */
function pairedNibbles(offset: number): string {
  return `(byte_at(at + ${offset}u + 32u * (group / 2u) + j) >> (4u * (group % 2u))) & 15u`;
}

/** Scale in the lower byte, minimum in the upper; 6 bits each, those of the last four groups in two pieces. */
const SIX_BIT_SCALES = `
      fn six_bit_scales(at: u32, group: u32) -> u32 {
        if (group < 4u) { return (byte_at(at + group) & 63u) | ((byte_at(at + group + 4u) & 63u) << 8u); }
        let low = byte_at(at + group + 4u);
        let scale = (low & 15u) | ((byte_at(at + group - 4u) >> 6u) << 4u);
        let minimum = (low >> 4u) | ((byte_at(at + group) >> 6u) << 4u);
        return scale | (minimum << 8u);
      }`;

const SCALE_AND_MINIMUM = {
  scales: "six_bit_scales(at + 4u, group)",
  block: "half_at(at) | (half_at(at + 2u) << 16u)",
};

/** The readers by type. */
export const BLOCK_WGSL: Readonly<Record<BlockDType, string>> = {
  Q8_0: groupReader("Q8_0", "byte_at(at + 2u + j)"),
  Q4_0: groupReader("Q4_0", halvedNibbles(2)),
  Q5_0: groupReader("Q5_0", `(${halvedNibbles(6)}) | (((byte_at(at + 2u + j / 8u) >> (j % 8u)) & 1u) << 4u)`),
  Q4_K: SIX_BIT_SCALES + blockReader(pairedNibbles(16), SCALE_AND_MINIMUM),
  Q5_K: SIX_BIT_SCALES +
    blockReader(`(${pairedNibbles(48)}) | (((byte_at(at + 16u + j) >> group) & 1u) << 4u)`, SCALE_AND_MINIMUM),
  // Halves of 128: four groups share 64 bytes of nibbles and 32 bytes of upper bits.
  Q6_K: blockReader(
    `((byte_at(at + 64u * (group / 4u) + 32u * (group % 2u) + j) >> (4u * (group % 4u / 2u))) & 15u) | ` +
      `(((byte_at(at + 128u + 32u * (group / 4u) + j) >> (2u * (group % 4u))) & 3u) << 4u)`,
    { scales: "half_at(at + 192u + 2u * group)", block: "half_at(at + 208u)" },
  ),
};
