/**
 * Waits for something, but not for long. A failure after that is ignored.
 * @returns what it resolves to; undefined when it takes longer than so many milliseconds
 * @throws what it throws before
 */
export async function within<T>(ms: number, done: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  // Whole ones share the runtime's list of timers; each other duration has a list of its own.
  const timer = setTimeout(() => late.resolve(undefined), Math.ceil(ms));
  return await Promise.race([done, late.promise]).finally(() => clearTimeout(timer));
}
