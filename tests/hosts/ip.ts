/** The command `ip`, and `tc` beside it, which make and change links. */

import assert from "node:assert/strict";

/** Runs `ip`. @throws {AssertionError} with what it said when it failed */
export async function ip(...args: readonly string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("ip", { args: [...args], stdout: "null", stderr: "piped" })
    .output();
  assert.ok(success, `ip ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

/** Runs `tc`. @returns whether it succeeded: the kernel may lack what is asked for */
export async function tc(...args: readonly string[]): Promise<boolean> {
  return (await new Deno.Command("tc", { args: [...args], stdout: "null", stderr: "null" }).output()).success;
}
