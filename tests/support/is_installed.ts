/** Whether this machine has a program that some tests start; where it has not, they say so and are left out. */

/** @param args with which it ends at once */
export async function isInstalled(program: string, args: readonly string[] = ["--version"]): Promise<boolean> {
  try {
    const options: Deno.CommandOptions = { args: [...args], stdout: "null", stderr: "null" };
    return (await new Deno.Command(program, options).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
