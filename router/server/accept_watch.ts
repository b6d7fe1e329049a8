/**
 * Notices when a listener has stopped accepting. Under Deno, that of node:net ends for good and without an error when it
 * once runs out of file descriptors, which bounds on connections make rare and cannot exclude: a burst is accepted faster
 * than what it is refused is closed. So a listener that was idle is connected to, and opened again if nothing comes of it.
 */

/** A listener, as far as it can be watched. */
export interface WatchedListener {
  /** Connections accepted so far, those refused at once included. */
  accepted(): number;
  /** Where to connect to. */
  address(): { readonly hostname: string; readonly port: number };
  /** It does not accept: opens it again at the same address. */
  reopen(): void;
}

/** Between two looks. */
const EVERY_MS = 2000;
/** For a connection to be accepted; a router under load may be late. */
const PATIENCE_MS = 1000;

/** Watches from its making until `close`. */
export class AcceptWatch {
  readonly #listener: WatchedListener;
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #closing = new AbortController();
  #looking: Promise<void> | undefined;
  #seen = 0;

  /** @param everyMs @default 2000 */
  constructor(listener: WatchedListener, everyMs: number = EVERY_MS) {
    this.#listener = listener;
    this.#timer = setInterval(() => {
      this.#looking ??= this.#look().finally(() => this.#looking = undefined);
    }, everyMs);
  }

  /** Ends the watch; nothing of it is left when this returns. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#closing.abort();
    await this.#looking;
  }

  async #look(): Promise<void> {
    const accepted = this.#listener.accepted();
    const isBusy = accepted !== this.#seen;
    this.#seen = accepted;
    if (isBusy || await this.#accepts(accepted) || this.#closing.signal.aborted) return;
    this.#listener.reopen();
  }

  /** Whether a connection of our own is accepted; a failure to make one shows nothing, unless it was refused. */
  async #accepts(before: number): Promise<boolean> {
    let conn: Deno.TcpConn;
    try {
      const { hostname, port } = this.#listener.address();
      conn = await Deno.connect({ hostname: reachable(hostname), port, signal: this.#closing.signal });
    } catch (error) {
      return !(error instanceof Deno.errors.ConnectionRefused);
    }
    try {
      for (let waitedMs = 0; waitedMs < PATIENCE_MS && !this.#closing.signal.aborted; waitedMs += 10) {
        if (this.#listener.accepted() !== before) return true;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return false;
    } finally {
      conn.close();
      this.#seen = this.#listener.accepted();
    }
  }
}

/** An address that means all of them is none to connect to. */
function reachable(hostname: string): string {
  return hostname === "0.0.0.0" ? "127.0.0.1" : hostname === "::" ? "::1" : hostname;
}
