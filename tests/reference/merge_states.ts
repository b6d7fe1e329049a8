/** The merge of attention states, in plain f64 loops. */

import { EMPTY, type State } from "./attention.ts";

/** Merges states over disjoint rows; the merge of none, or of empty ones, is empty. */
export function merge(states: readonly State[], headDim: number): State {
  const full = states.filter(({ lse }) => lse > EMPTY);
  const o = new Float64Array(headDim);
  if (full.length === 0) return { o, lse: EMPTY };
  const top = full.reduce((a, { lse }) => Math.max(a, lse), -Infinity);
  const mass = full.reduce((sum, { lse }) => sum + Math.exp(lse - top), 0);
  for (const state of full) {
    for (let d = 0; d < headDim; d++) o[d] = (o[d] ?? NaN) + (Math.exp(state.lse - top) / mass) * (state.o[d] ?? NaN);
  }
  return { o, lse: top + Math.log(mass) };
}
