/**
 * Files in which the system describes itself, under /proc, /sys and /dev. Deno lets only a process with all permissions
 * read them; one with fewer asks `ls` and `cat`, which it must be allowed to run.
 */

/** Names in a directory; none when it is not there or not for us. */
export function listSystemDirectory(path: string): readonly string[] {
  const names = present(
    () => [...Deno.readDirSync(path)].map(({ name }) => name),
    () => output("ls", path)?.split("\n"),
  );
  return (names ?? []).filter((name) => name !== "");
}

/** Text of a file; undefined when it is not there or not for us. */
export function readSystemFile(path: string): string | undefined {
  return present(() => Deno.readTextFileSync(path), () => output("cat", path));
}

function present<T>(read: () => T, ask: () => T | undefined): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return undefined;
    if (error instanceof Deno.errors.NotCapable) return ask();
    throw error;
  }
}

function output(program: "ls" | "cat", path: string): string | undefined {
  const { success, stdout } = new Deno.Command(program, { args: [path], stderr: "null" }).outputSync();
  return success ? new TextDecoder().decode(stdout) : undefined;
}
