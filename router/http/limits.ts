/**
 * How much and how long a client may take: body sizes, body time, silence on a stream.
 * Knows bytes and milliseconds; knows nothing of what the bytes mean.
 */

import { contextOf } from "../access/request_context.ts";
import { RequestError } from "../errors.ts";

/** The limits of the HTTP layer. */
export interface Limits {
  /** Largest body. @default 32 MiB */
  readonly bodyBytes: number;
  /** All bodies held at once, until they are parsed. @default 256 MiB */
  readonly pendingBodyBytes: number;
  /** Time to receive a body. @default 60 s */
  readonly bodyMs: number;
  /** Silence on a stream after which a comment is written. @default 5 s */
  readonly keepAliveMs: number;
  /** A reader of a stream that takes nothing for so long is disconnected. @default 2 min */
  readonly stallMs: number;
}

/** The limits of a service whose configuration names none. */
export const DEFAULT_LIMITS: Limits = {
  bodyBytes: 32 * 2 ** 20,
  pendingBodyBytes: 256 * 2 ** 20,
  bodyMs: 60_000,
  keepAliveMs: 5_000,
  stallMs: 120_000,
};

/** A body in memory, and its share of the bytes that all bodies may take. */
export interface Body {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Call when the bytes are no longer needed; harmless twice. */
  release(): void;
}

/** The client left in the middle of its body, or sent one that looks the same. */
export class BodyBrokenOff extends RequestError {
  constructor(cause: unknown) {
    super("invalid_request", "Cannot read the body: the connection broke off", { cause });
  }
}

/** Reads bodies within the limits; one for the whole service, as it counts what all of them hold. */
export class BodyReader {
  readonly #limits: Limits;
  #pendingBytes = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** Bytes of all bodies not yet released. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /**
   * Reads a whole body, or stops at the first byte too many.
   * @throws {RequestError} `request_too_large`, `request_timeout`, `queue_full` when all bodies together take too much,
   * what the server found wrong with its framing, or `BodyBrokenOff`
   */
  async read(request: Request): Promise<Body> {
    this.#refuseDeclared(request);
    const chunks: Uint8Array[] = [];
    let held = 0;
    const release = () => {
      this.#pendingBytes -= held;
      held = 0;
    };
    try {
      await this.#eachChunk(request, (chunk) => {
        held += chunk.byteLength;
        this.#pendingBytes += chunk.byteLength;
        if (held > this.#limits.bodyBytes) throw this.#tooLarge("more");
        if (this.#pendingBytes > this.#limits.pendingBodyBytes) {
          throw new RequestError("queue_full", "Cannot take the request: too many large requests are being read");
        }
        chunks.push(chunk);
      });
      return { bytes: join(chunks, held), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  async #eachChunk(request: Request, take: (chunk: Uint8Array) => void): Promise<void> {
    if (request.body === null) return;
    const reader = request.body.getReader();
    const { bodyMs } = this.#limits;
    const late = new AbortController();
    const timer = setTimeout(() => {
      late.abort(new RequestError("request_timeout", `Cannot read the body: it took over ${bodyMs} ms`));
    }, bodyMs);
    const over = AbortSignal.any([late.signal, ...malformedOf(request)]);
    over.addEventListener("abort", () => {
      reader.cancel().catch(() => {/* the connection is gone, which is what was wanted */});
    });
    try {
      for (;;) {
        over.throwIfAborted();
        const { done, value } = await receive(reader);
        over.throwIfAborted();
        if (done) return;
        take(value);
      }
    } catch (error) {
      reader.cancel().catch(() => {/* already broken: the first error says why */});
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** A body that declares itself too large is refused before it is sent. */
  #refuseDeclared(request: Request): void {
    const declared = Number(request.headers.get("content-length") ?? 0);
    if (declared > this.#limits.bodyBytes) throw this.#tooLarge(String(declared));
  }

  #tooLarge(given: string): RequestError {
    return new RequestError(
      "request_too_large",
      `Cannot read the body: at most ${this.#limits.bodyBytes} bytes are taken, ${given} given`,
    );
  }
}

/** Aborted when the server finds that the body is not valid HTTP; none for a request that came through no server. */
function malformedOf(request: Request): readonly AbortSignal[] {
  const context = contextOf(request);
  return context === undefined ? [] : [context.malformed];
}

async function receive(reader: ReadableStreamDefaultReader<Uint8Array>) {
  try {
    return await reader.read();
  } catch (cause) {
    throw new BodyBrokenOff(cause);
  }
}

function join(chunks: readonly Uint8Array[], bytes: number): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.byteLength;
  }
  return whole;
}
