/** Blocks of GGUF with random bits, and scales that give weights the size of those of a model. */

import { toHalf } from "../../kernels/half.ts";
import { type BlockDType, BLOCKS } from "../../kernels/weights/source_types.ts";
import type { Random } from "./random.ts";

/** Bytes of so many weights, of about this deviation. */
export function randomBlocks(
  random: Random,
  source: BlockDType,
  weights: number,
  deviation = 1,
): Uint8Array<ArrayBuffer> {
  const { bytes, scales, weights: unit } = BLOCKS[source];
  const data = Uint8Array.from({ length: weights / unit * bytes }, () => random.integer(256));
  for (let block = 0; block < data.length; block += bytes) {
    for (const [offset, largestFactor] of scales) {
      const [pattern = 0] = toHalf([deviation * (2 + random.uniform()) / largestFactor]);
      data.set([pattern & 0xff, pattern >> 8], block + offset);
    }
  }
  return data;
}
