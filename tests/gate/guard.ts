/**
 * Ends process groups when their owner ends, however it ends: a child of its own waits for the pipe to the owner to
 * close, which even a killed process closes, and kills the groups that are still named. Needs a POSIX shell.
 */

/** Keeps the list of groups in the shell; each line is `+ID` or `-ID`. */
const SCRIPT = `
groups=" "
while read -r line; do
  id="\${line#?}"
  case "$line" in
    +*) groups="$groups$id " ;;
    -*) groups="\${groups%% $id *} \${groups#* $id }" ;;
  esac
done
for id in $groups; do kill -s KILL -- "-$id" 2>/dev/null; done
exit 0
`;

/** Watches over the process groups of one owner. */
export class Guard implements AsyncDisposable {
  readonly #shell: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #encoder = new TextEncoder();
  #said: Promise<void> = Promise.resolve();

  /** Starts the shell, in a group of its own: an interrupt of the terminal must not end it. */
  constructor() {
    this.#shell = new Deno.Command("sh", {
      args: ["-c", SCRIPT],
      stdin: "piped",
      stdout: "null",
      stderr: "null",
      detached: true,
    }).spawn();
    this.#writer = this.#shell.stdin.getWriter();
  }

  /** Process id of the shell. */
  get pid(): number {
    return this.#shell.pid;
  }

  /** Names a group that must not outlive the owner; its id is that of its first process. */
  watch(group: number): void {
    this.#say(`+${group}`);
  }

  /** Ends a group now, with all that it started. */
  end(group: number): void {
    killGroup(group);
    this.#say(`-${group}`);
  }

  /** Ends the groups still named, and the shell. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#said;
    await this.#writer.close();
    await this.#shell.status;
  }

  #say(line: string): void {
    this.#said = this.#said.then(() => this.#writer.write(this.#encoder.encode(`${line}\n`)));
  }
}

function killGroup(group: number): void {
  try {
    Deno.kill(-group, "SIGKILL");
  } catch (error) {
    // All of it has ended by itself.
    if (!(error instanceof Deno.errors.NotFound || isNoSuchProcess(error))) throw error;
  }
}

function isNoSuchProcess(error: unknown): boolean {
  return error instanceof Error && /ESRCH|No such process/.test(error.message);
}
