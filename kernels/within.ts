/** Waits for something, but not for long: resolves when it has ended, or after so many milliseconds. @throws what it throws before */
export async function within(ms: number, done: Promise<unknown>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, ms);
  await Promise.race([done, late.promise]).finally(() => clearTimeout(timer));
}
