/** HTTP as bytes on a socket: what a client sends that no HTTP library would, and how a connection ends. */

/** A connection to 127.0.0.1; `close` it. */
export class RawHttp implements Disposable {
  readonly #conn: Deno.TcpConn;
  #text = "";
  #isOver = false;
  readonly #reading: Promise<void> | undefined;

  private constructor(conn: Deno.TcpConn, reads: boolean) {
    this.#conn = conn;
    if (reads) this.#reading = this.#read();
  }

  /** @param options.reads false: a client that never takes what it is sent. @default true */
  static async open(port: number, options: { readonly reads?: boolean } = {}): Promise<RawHttp> {
    return new RawHttp(await Deno.connect({ hostname: "127.0.0.1", port }), options.reads ?? true);
  }

  /** What has come so far. */
  get text(): string {
    return this.#text;
  }

  /** Whether the server has closed the connection. */
  get isOver(): boolean {
    return this.#isOver;
  }

  async send(...parts: readonly string[]): Promise<void> {
    for (const part of parts) {
      const bytes = new TextEncoder().encode(part);
      for (let sent = 0; sent < bytes.length;) sent += await this.#conn.write(bytes.subarray(sent));
    }
  }

  /** Sends nothing more, and still listens. */
  async halfClose(): Promise<void> {
    await this.#conn.closeWrite();
  }

  /** Waits for the server to close the connection; all that it sent. */
  async ended(deadlineMs: number): Promise<string> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new Error(`The connection is open after ${deadlineMs} ms; it got ${this.#text}`);
      timer = setTimeout(() => reject(error), deadlineMs);
    });
    await Promise.race([this.#reading, late]).finally(() => clearTimeout(timer));
    return this.#text;
  }

  [Symbol.dispose](): void {
    try {
      this.#conn.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    const bytes = new Uint8Array(65_536);
    try {
      for (let got = await this.#conn.read(bytes); got !== null; got = await this.#conn.read(bytes)) {
        this.#text += decoder.decode(bytes.subarray(0, got), { stream: true });
      }
    } catch (error) {
      const isClosed = error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted;
      if (!isClosed && !(error instanceof Deno.errors.ConnectionReset)) throw error;
    }
    this.#isOver = true;
  }
}

/** A request's head and body as one text, with the headers that every request needs. */
export function rawRequest(method: string, path: string, options: {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
} = {}): string {
  const { headers = {}, body } = options;
  const length = body === undefined ? [] : [`Content-Length: ${new TextEncoder().encode(body).byteLength}`];
  const lines = Object.entries({ Host: "127.0.0.1", ...headers }).map(([name, value]) => `${name}: ${value}`);
  return [`${method} ${path} HTTP/1.1`, ...lines, ...length, "", body ?? ""].join("\r\n");
}
