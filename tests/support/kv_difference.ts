/** The keys and values of a sequence over all workers of a group, and how far they are from those of another one. */

import type { Engine } from "../../engine/engine.ts";

/** Rows by their names, `k` or `v` and the position. */
export type KvByPlace = ReadonlyMap<string, Float32Array>;

/** Everything that the workers hold of a sequence in one layer. */
export async function kvOf(engines: readonly Engine[], sequence: number, layer: number): Promise<KvByPlace> {
  const rows = new Map<string, Float32Array>();
  for (const engine of engines) {
    const { positions, k, v } = await engine.readKvRows(sequence, layer);
    const width = k.length / positions.length;
    positions.forEach((position, row) => {
      rows.set(`k ${position}`, k.subarray(row * width, (row + 1) * width));
      rows.set(`v ${position}`, v.subarray(row * width, (row + 1) * width));
    });
  }
  return rows;
}

/** Difference of two layers' rows, relative to the norm of the first. */
export function relativeRms(expected: KvByPlace, given: KvByPlace): number {
  let [error, norm] = [0, 0];
  for (const [place, row] of expected) {
    row.forEach((value, i) => {
      error += (value - (given.get(place)?.[i] ?? NaN)) ** 2;
      norm += value ** 2;
    });
  }
  return Math.sqrt(error / norm);
}
