/**
 * What the gate tries of cases that take long: a sample, so that it stays short. `deno task test:all` runs the same tests
 * over all of them. Knows which is wanted; knows no cases.
 */

/** Set to `all` by the task. */
const VARIABLE = "TIDEPOOL_TEST_CASES";

/**
 * The sample, or everything that it was taken from.
 * @throws {RangeError} when the variable says something else
 */
export function gateCases<T>(sample: T, all: T): T {
  const wanted = Deno.env.get(VARIABLE) ?? "sample";
  if (wanted === "sample") return sample;
  if (wanted === "all") return all;
  throw new RangeError(`Cannot choose test cases: ${VARIABLE} must be sample or all, given ${wanted}`);
}
