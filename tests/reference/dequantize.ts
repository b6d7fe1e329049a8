/**
 * The blocks of GGUF in plain loops, as ggml defines them: one weight at a time, from the bytes of a file.
 */

import { fromHalf } from "../../kernels/half.ts";
import { type BlockDType, BLOCKS } from "../../kernels/weights/source_types.ts";

/** A block's weights, f32; `at(i)` is its byte i. */
type Reader = (at: (i: number) => number) => number[];

const range = (count: number) => Array.from({ length: count }, (_, i) => i);

function half(at: (i: number) => number, offset: number): number {
  return fromHalf(Uint16Array.of(at(offset) | at(offset + 1) << 8))[0] ?? NaN;
}

function signed(byte: number): number {
  return byte < 128 ? byte : byte - 256;
}

function halvedNibble(at: (i: number) => number, offset: number, j: number): number {
  return j < 16 ? at(offset + j) & 15 : at(offset + j - 16) >> 4;
}

/** Scale and minimum of a group of Q4_K or Q5_K. */
function sixBits(at: (i: number) => number, group: number): [scale: number, minimum: number] {
  const q = (i: number) => at(4 + i);
  if (group < 4) return [q(group) & 63, q(group + 4) & 63];
  return [
    (q(group + 4) & 15) | (q(group - 4) >> 6) << 4,
    (q(group + 4) >> 4) | (q(group) >> 6) << 4,
  ];
}

function withMinimum(at: (i: number) => number, quantum: (group: number, j: number) => number): number[] {
  return range(256).map((i) => {
    const [group, j] = [Math.floor(i / 32), i % 32];
    const [scale, minimum] = sixBits(at, group);
    return Math.fround(half(at, 0) * scale * quantum(group, j) - half(at, 2) * minimum);
  });
}

function pairedNibble(at: (i: number) => number, offset: number, [group, j]: [number, number]): number {
  return (at(offset + 32 * Math.floor(group / 2) + j) >> (4 * (group % 2))) & 15;
}

const READERS: Readonly<Record<BlockDType, Reader>> = {
  Q8_0: (at) => range(32).map((j) => half(at, 0) * signed(at(2 + j))),
  Q4_0: (at) => range(32).map((j) => half(at, 0) * (halvedNibble(at, 2, j) - 8)),
  Q5_0: (at) =>
    range(32).map((j) => {
      const fifth = (at(2 + Math.floor(j / 8)) >> (j % 8)) & 1;
      return half(at, 0) * ((halvedNibble(at, 6, j) | fifth << 4) - 16);
    }),
  Q4_K: (at) => withMinimum(at, (group, j) => pairedNibble(at, 16, [group, j])),
  Q5_K: (at) => withMinimum(at, (group, j) => pairedNibble(at, 48, [group, j]) | ((at(16 + j) >> group) & 1) << 4),
  Q6_K: (at) =>
    range(256).map((i) => {
      // Halves of 128: quarters of 32 share bytes.
      const [h, quarter, l] = [Math.floor(i / 128), Math.floor(i % 128 / 32), i % 32];
      const low = (at(64 * h + 32 * (quarter % 2) + l) >> (quarter < 2 ? 0 : 4)) & 15;
      const high = (at(128 + 32 * h + l) >> (2 * quarter)) & 3;
      const scale = signed(at(192 + 8 * h + 2 * quarter + Math.floor(l / 16)));
      return half(at, 208) * scale * ((low | high << 4) - 32);
    }),
};

/** @returns f32, every product and difference rounded once */
export function dequantize(source: BlockDType, data: Uint8Array): Float32Array<ArrayBuffer> {
  const { weights, bytes } = BLOCKS[source];
  const values = new Float32Array(data.length / bytes * weights);
  for (let block = 0; block * bytes < data.length; block++) {
    values.set(READERS[source]((i) => data[block * bytes + i] ?? NaN), block * weights);
  }
  return values;
}
