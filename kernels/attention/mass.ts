/**
 * Probabilities as whole numbers, so that a sum of them does not depend on its order: a set that covers a given share of
 * the attention is the same on the GPU, in the router, and for any number of workers. Knows values of positions; knows
 * nothing of where they compete.
 *
 * A position's value is its probability p; that of a forced position is p · 2^64, but at least 2^24. Both orders are thus
 * right, forced ones come before all others, and no bit of p is lost. A mass is ⌊p · 2^29⌋: what rounding drops makes a
 * set larger, never smaller.
 */

/** The mass of all attention of a row. */
const MASS_ONE = 2 ** 29;

/** More than any positions weigh together. */
const UNREACHABLE = 2 ** 30 - 1;

const FORCED_SCALE = 2 ** 64;

/** The smallest value of a forced position; no probability comes near it. */
export const FORCED_LEAST: number = 2 ** 24;

/**
 * The mass that a set must have to cover a share of the attention; below 2^30. A coverage of 1 is never reached: nothing
 * less than all is all, whatever was rounded.
 * @param coverage above 0, at most 1
 */
export function neededMass(coverage: number): number {
  return coverage >= 1 ? UNREACHABLE : Math.ceil(coverage * MASS_ONE);
}

/** The mass of a position by its f32 value: what `massOf` of `MASS_WGSL` gives, to the last unit. */
export function massOf(value: number): number {
  const probability = value >= FORCED_LEAST ? value / FORCED_SCALE : value;
  return Math.floor(Math.min(Math.max(probability, 0), 1) * MASS_ONE);
}

/** WGSL: `forcedValue` of a probability, and `massOf` a value. */
export const MASS_WGSL: string = /* wgsl */ `
fn forcedValue(probability: f32) -> f32 {
  return max(probability * ${FORCED_SCALE}.0f, ${FORCED_LEAST}.0f);
}
fn massOf(value: f32) -> u32 {
  let probability = select(value, value * ${1 / FORCED_SCALE}f, value >= ${FORCED_LEAST}.0f);
  return u32(clamp(probability, 0.0, 1.0) * ${MASS_ONE}.0f);
}
`;
