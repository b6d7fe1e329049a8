/**
 * Which layers attend to everything, which choose positions, and which read only the chosen ones (TidalDecode).
 * Knows layer indices and budgets; knows nothing of tensors. Layers are counted from 0.
 */

import { EngineError } from "./errors.ts";
import type { SparseSettings } from "./span.ts";

/**
 * `dense`: full attention. `select`: full attention, and then the choice of positions.
 * `sparse`: attention only to the positions that the last select layer chose.
 */
export type LayerRole = "dense" | "select" | "sparse";

/** The positions every selection contains: the first few, and the newest share of the budget. */
export const SINKS = 4;

/** Share of the budget that goes to the newest positions, the current one included. */
const RECENT_SHARE = 0.25;

/** Below this a selection would hold little but its forced positions. */
export const MIN_BUDGET = 16;

/**
 * Newest positions that an adaptive set contains at most unasked: the share of its cap would keep it from becoming small.
 * With a quarter of these, text is predicted worse than under a fixed budget of the same mean size; with these, from a
 * coverage of 0.95 on, better.
 */
const ADAPTIVE_RECENT = 64;

/**
 * Positions that an adaptive set has at least, as far as its cap allows: where a select layer looks at few positions, the
 * layers after it still look at more. Reading these costs next to nothing beside the layers that read everything.
 */
export const ADAPTIVE_FLOOR = 80;

/** What `calibrate` found for a model; kept beside it as `tidepool.json`. */
export interface Calibration {
  /** At least one, ascending, none of them 0 and none the last layer. */
  readonly selectLayers: readonly number[];
  /** Default budget in positions. */
  readonly budget: number;
  /** In mode `auto`, contexts longer than this many positions are decoded sparsely. */
  readonly sparseFrom: number;
}

/** The role of each layer under a calibration: dense before the first select layer, sparse after it but for the rest. */
export function layerRoles(layers: number, selectLayers: readonly number[]): readonly LayerRole[] {
  const first = selectLayers[0];
  if (first === undefined) throw new EngineError("unsupported_model", "Cannot plan layers: no select layer is given");
  selectLayers.forEach((layer, i) => {
    const after = selectLayers[i - 1] ?? 0;
    if (!Number.isInteger(layer) || layer <= after || layer >= layers - 1) {
      throw new EngineError(
        "unsupported_model",
        `Cannot plan layers: select layer ${layer} must be an integer above ${after} and below ${layers - 1}`,
      );
    }
  });
  return Array.from({ length: layers }, (_, layer) => {
    if (layer < first) return "dense";
    return selectLayers.includes(layer) ? "select" : "sparse";
  });
}

/** Newest positions that are always selected, the current one included. */
export function recentOf({ budget, coverage }: Pick<SparseSettings, "budget" | "coverage">): number {
  const share = Math.max(1, Math.floor(budget * RECENT_SHARE));
  return coverage === undefined ? share : Math.min(share, ADAPTIVE_RECENT);
}

/** Sparse layers that read what a select layer chooses. */
export function sparseLayersAfter(roles: readonly LayerRole[], layer: number): number {
  const next = roles.findIndex((role, other) => other > layer && role !== "sparse");
  return (next < 0 ? roles.length : next) - layer - 1;
}

/**
 * Whether the row at `position` attends densely although its request is sparse: a context within the budget is computed
 * on the dense path, bit for bit.
 */
export function rowAttention(sparse: SparseSettings, position: number): "dense" | "sparse" {
  return position + 1 <= sparse.budget ? "dense" : "sparse";
}

/** KV rows that one KV head reads over all layers for the row at `position`; of an adaptive row, at most reads. */
export function rowsRead(roles: readonly LayerRole[], budget: number, position: number): number {
  const context = position + 1;
  return roles.reduce((sum, role) => sum + (role === "sparse" ? Math.min(budget, context) : context), 0);
}
