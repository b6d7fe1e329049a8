/** Array access where an index out of range is a bug that must not pass for a zero. */

/** The element at an index; not for loops that run for every element on the token path. @throws {RangeError} when there is none */
export function at<T>(array: ArrayLike<T>, index: number): T {
  const element = array[index];
  if (element === undefined) throw new RangeError(`Cannot read element ${index}: there are ${array.length}`);
  return element;
}
