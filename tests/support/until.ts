/** Waiting for something that a test cannot await. */

/**
 * Resolves once the condition holds.
 * @throws when it does not within `deadlineMs`
 */
export async function until(condition: () => boolean | Promise<boolean>, deadlineMs = 30_000): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!await condition()) {
    if (performance.now() > end) throw new Error(`Cannot wait any longer: ${deadlineMs} ms for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
