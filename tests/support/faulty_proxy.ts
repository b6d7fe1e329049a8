/**
 * A way into a worker that can be made to fail: it hands on the bytes of every connection, until it is told to cut, garble
 * or swallow those of peers or of the router. Knows who dials by the role in the first bytes, and where frames begin; knows no messages.
 */

import { decodePrefix, FRAME_LIMITS, PREFIX_BYTES } from "../../workers/codec.ts";
import type { WorkerHost } from "../../router/group/worker_source.ts";

/** Whose connections a fault is for. */
export type Dialer = "router" | "peer";

/** Where a hello says who speaks, and what it says. */
const ROLE_AT = 10;
const ROLES: readonly (Dialer | undefined)[] = ["router", undefined, "peer"];

/** What the side that dialed sends before its first frame, and what the other one does. */
const HANDSHAKE_BYTES = { dialer: 56 + 32, listener: 56 + 1 + 32 } as const;

interface Pipe {
  readonly dialer: Dialer | undefined;
  readonly ends: readonly Deno.TcpConn[];
  /** What is done to each chunk on its way, in which a frame begins there. */
  change: (chunk: Uint8Array<ArrayBuffer>, frameAt?: number) => Uint8Array<ArrayBuffer>;
}

/** Where frames begin in what one side sends. */
class FrameEdges {
  /** Bytes before the next frame. */
  #left: number;
  #prefix: number[] = [];

  constructor(handshakeBytes: number) {
    this.#left = handshakeBytes;
  }

  /** Takes in what was sent next. @returns where in it the first frame begins whose prefix is whole */
  take(chunk: Uint8Array): number | undefined {
    let frameAt: number | undefined;
    for (let at = 0; at < chunk.length;) {
      const passed = Math.min(this.#left, chunk.length - at);
      this.#left -= passed;
      at += passed;
      if (at === chunk.length) break;
      if (this.#prefix.length === 0 && at + PREFIX_BYTES <= chunk.length) frameAt ??= at;
      this.#prefix.push(chunk[at++] ?? 0);
      if (this.#prefix.length < PREFIX_BYTES) continue;
      const { headerBytes, payloadBytes } = decodePrefix(Uint8Array.from(this.#prefix), FRAME_LIMITS);
      this.#left = headerBytes + payloadBytes;
      this.#prefix = [];
    }
    return frameAt;
  }
}

/** See the top of this file; `close` must be called */
export class FaultyProxy {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #pipes = new Set<Pipe>();
  readonly #work = new Set<Promise<void>>();

  /** Port on this machine that new connections go to. */
  target: number;

  constructor({ port }: { readonly port: number }) {
    this.target = port;
    this.#track(this.#accept());
  }

  get address(): { readonly hostname: string; readonly port: number } {
    return { hostname: "127.0.0.1", port: this.#listener.addr.port };
  }

  /** Connections that stand. */
  count(dialer: Dialer): number {
    return this.#of(dialer).length;
  }

  /** Breaks the connections. */
  cut(dialer: Dialer): void {
    for (const pipe of this.#of(dialer)) this.#end(pipe);
  }

  /** Garbles the beginning of the next frame, in either direction: within a tensor nothing would show. */
  corrupt(dialer: Dialer): void {
    for (const pipe of this.#of(dialer)) {
      pipe.change = (chunk, frameAt) => {
        if (frameAt === undefined) return chunk;
        pipe.change = (rest) => rest;
        return chunk.fill(0xff, frameAt, frameAt + PREFIX_BYTES);
      };
    }
  }

  /** Swallows everything from now on, but keeps the connections. */
  swallow(dialer: Dialer): void {
    for (const pipe of this.#of(dialer)) pipe.change = () => new Uint8Array(0);
  }

  async close(): Promise<void> {
    this.#listener.close();
    for (const pipe of this.#pipes) this.#end(pipe);
    while (this.#work.size > 0) await Promise.all(this.#work);
  }

  /** Puts the proxy before a worker; they end together. */
  host(worker: WorkerHost): WorkerHost {
    return {
      address: this.address,
      secret: worker.secret,
      get lastWords() {
        return worker.lastWords;
      },
      endsWithin: (ms) => worker.endsWithin(ms),
      stop: async (graceMs) => {
        await worker.stop(graceMs);
        await this.close();
      },
    };
  }

  #of(dialer: Dialer): Pipe[] {
    return [...this.#pipes].filter((pipe) => pipe.dialer === dialer);
  }

  #end(pipe: Pipe): void {
    if (!this.#pipes.delete(pipe)) return;
    for (const end of pipe.ends) end.close();
  }

  async #accept(): Promise<void> {
    for await (const near of this.#listener) this.#track(this.#join(near, this.target));
  }

  async #join(near: Deno.TcpConn, port: number): Promise<void> {
    const hello = new Uint8Array(256);
    try {
      const got = await near.read(hello) ?? 0;
      const far = await Deno.connect({ port });
      near.setNoDelay();
      far.setNoDelay();
      await far.write(hello.subarray(0, got));
      const pipe: Pipe = { dialer: ROLES[hello[ROLE_AT] ?? 0], ends: [near, far], change: (chunk) => chunk };
      this.#pipes.add(pipe);
      const [dialed, listens] = [
        new FrameEdges(HANDSHAKE_BYTES.dialer - got),
        new FrameEdges(HANDSHAKE_BYTES.listener),
      ];
      await Promise.all([this.#pump(pipe, [near, far], dialed), this.#pump(pipe, [far, near], listens)]);
    } catch (error) {
      near.close();
      if (!(error instanceof Deno.errors.ConnectionRefused)) throw error;
    }
  }

  async #pump(pipe: Pipe, [from, to]: readonly [Deno.TcpConn, Deno.TcpConn], edges: FrameEdges): Promise<void> {
    const buffer = new Uint8Array(1 << 16);
    try {
      for (let got = await from.read(buffer); got !== null; got = await from.read(buffer)) {
        const read = buffer.slice(0, got);
        const chunk = pipe.change(read, edges.take(read));
        for (let written = 0; written < chunk.length;) written += await to.write(chunk.subarray(written));
      }
    } catch {
      // However a connection ends, both ends are to see it.
    }
    this.#end(pipe);
  }

  #track(work: Promise<void>): void {
    this.#work.add(work);
    work.then(() => this.#work.delete(work));
  }
}
