/** Whether processes still run. */

/** Whether a process runs; one that has ended but that nobody has waited for counts as gone. */
export function isRunning(pid: number): boolean {
  try {
    if (Deno.build.os === "linux") {
      const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
      return stat.slice(stat.lastIndexOf(")")).at(2) !== "Z";
    }
    Deno.kill(pid, "SIGCONT");
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
