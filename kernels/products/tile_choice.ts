/**
 * Which size of tile multiplies a weight with many rows, or a quantised one with a few: as measured on the adapter where it was, else
 * by a rule. All sizes add in the same order, so that a choice changes no bits. Knows shapes; measures nothing.
 */

import type { Weight } from "../weights/weight.ts";

/** Both sizes that adapters with tiles have; see `matmul.ts`, and of few rows `subgroup_rows.ts`. */
export type TileSize = "small" | "large";

/** Numbers of rows that are measured; others go by the nearest one, and few rows by the rule. */
export const TUNED_ROWS = [512, 2048] as const;

/** And of few rows: of more, each tile takes so many. */
export const TUNED_FEW_ROWS = 8;
/** Fewer have tiles of their own. */
const MAX_OTHER_ROWS = 4;

/** Below this, and between the two: the geometric means. */
const FEW_ROWS = 256;
const MANY_ROWS = 1024;

/** Measured choices by weight shape and rows. */
export class TileChoices {
  readonly #sizes = new Map<string, TileSize>();

  /** The measured size; undefined: by the rule. */
  sizeFor(rows: number, weight: Omit<Weight, "label">): TileSize | undefined {
    if (rows < FEW_ROWS || this.#sizes.size === 0) return undefined;
    return this.#sizes.get(choiceKey(rows < MANY_ROWS ? TUNED_ROWS[0] : TUNED_ROWS[1], weight));
  }

  /** The same for few rows of a quantised weight. */
  sizeForFew(rows: number, weight: Omit<Weight, "label">): TileSize | undefined {
    if (rows <= MAX_OTHER_ROWS || this.#sizes.size === 0) return undefined;
    return this.#sizes.get(choiceKey(TUNED_FEW_ROWS, weight));
  }

  /** Takes a choice by its key. */
  set(key: string, size: TileSize): void {
    this.#sizes.set(key, size);
  }

  /** By key. */
  get entries(): Readonly<Record<string, TileSize>> {
    return Object.fromEntries(this.#sizes);
  }
}

/** The name of a choice: rows, shape of the weight, and its formats. */
export function choiceKey(
  rows: (typeof TUNED_ROWS)[number] | typeof TUNED_FEW_ROWS,
  weight: Omit<Weight, "label">,
): string {
  const formats = [...new Set(weight.parts.map(({ dtype }) => dtype))].join("+");
  return `${rows} by ${weight.rows}×${weight.cols} ${formats}`;
}
