/** How near a computed array must be to its reference. */

import assert from "node:assert/strict";

/** Both bounds must hold; a tolerance names its reason where it is used. */
export interface Tolerance {
  /** Mean squared error over the reference's mean square. */
  readonly nmse?: number;
  readonly maxAbs?: number;
}

/** @throws {AssertionError} with both errors and the place of the worst when `actual` is too far off or not finite */
export function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: Tolerance): void {
  assert.equal(actual.length, expected.length, `has ${actual.length} values, expected ${expected.length}`);
  let [squares, power, worst, worstError] = [0, 0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    const value = expected[i] ?? NaN;
    const error = Math.abs((actual[i] ?? NaN) - value);
    squares += error * error;
    power += value * value;
    // Negated, so that NaN counts as the worst and stays it.
    if (!(error <= worstError) && !Number.isNaN(worstError)) [worst, worstError] = [i, error];
  }
  const nmse = squares === 0 ? 0 : squares / power;
  const close = nmse <= (tolerance.nmse ?? Infinity) && worstError <= (tolerance.maxAbs ?? Infinity);
  const place = `at ${worst}: ${actual[worst]} instead of ${expected[worst]}`;
  assert.ok(
    close,
    `NMSE ${nmse} (bound ${tolerance.nmse}), error ${worstError} (bound ${tolerance.maxAbs}) ${place}`,
  );
}
