/** Waits for something, but not for long: resolves when it has ended, or after so many milliseconds. @throws what it throws before */
export async function within(ms: number, done: Promise<unknown>): Promise<void> {
  const late = Promise.withResolvers<void>();
  // Whole ones share the runtime's list of timers; each other duration has a list of its own.
  const timer = setTimeout(late.resolve, Math.ceil(ms));
  await Promise.race([done, late.promise]).finally(() => clearTimeout(timer));
}
