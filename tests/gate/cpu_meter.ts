/** What processes that have ended took of the CPU, with all that they started, as Linux accounts for it. */

/** Of the times in `/proc`; the same on every Linux that programs see. */
const TICKS_PER_SECOND = 100;

/** Places of `cutime` and `cstime`, after the name of the program. */
const [ENDED_USER, ENDED_SYSTEM] = [13, 14];

/** Reads the account of this process. One for all stages that run at a time. */
export class CpuMeter {
  #taken = 0;

  /** Seconds of what has ended since the last call; undefined where there is no `/proc`. */
  take(): number | undefined {
    const seconds = endedSeconds();
    if (seconds === undefined) return undefined;
    const since = seconds - this.#taken;
    this.#taken = seconds;
    return since;
  }
}

function endedSeconds(): number | undefined {
  if (Deno.build.os !== "linux") return undefined;
  const stat = Deno.readTextFileSync("/proc/self/stat");
  // The name may hold anything, spaces and brackets included.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[ENDED_USER]) + Number(fields[ENDED_SYSTEM])) / TICKS_PER_SECOND;
}
