/**
 * The HTTP server: node:http, or node:https with a certificate, in front of a handler that takes requests and gives responses.
 * The only importer of the adapter between the two. Deno's own server is not used, because it loses requests whose client
 * has gone and does not survive running out of file descriptors.
 */

import { getRequestListener } from "@hono/node-server";
import http from "node:http";
import https from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";

import { describeError, RequestError } from "../errors.ts";
import { AcceptWatch } from "./accept_watch.ts";
import { CONNECTION_DEFAULTS, type ConnectionLimits, Connections } from "./connections.ts";
import { malformedHead, malformedRequest, slowHead, writeRawAnswer } from "./malformed_request.ts";
import type { TlsFiles } from "../host/tls_files.ts";

/** The client of a request. */
export interface Peer {
  /** IP address. */
  readonly address: string;
  /** Aborted with a `RequestError` when the body of the request turns out not to be valid HTTP. */
  readonly malformed: AbortSignal;
  /** Calls back once the response is sent, or will not be. */
  onClosed(callback: () => void): void;
}

/** What a server hands its requests to. */
export interface RequestHandler {
  /** Must not reject. The request's `signal` is aborted when its client has gone before the answer. */
  answer(request: Request, peer: Peer): Promise<Response>;
  /** A request was refused because it is not valid HTTP, or its head did not come in time. */
  onRefused(address: string, error: RequestError): void;
  /** A failure that no client is informed of. */
  onError(error: unknown): void;
}

/** Where and how a server listens. */
export interface HttpServerOptions extends Partial<ConnectionLimits> {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly maxConnections: number;
  /** Undefined: clear text. */
  readonly tls: TlsFiles | undefined;
}

/** Connections that may be on their way out beside those that are open. */
const CLOSING_CONNECTIONS = 16;

/** Before the service is put together. */
const STARTING: RequestHandler = {
  answer: () => Promise.resolve(errorResponse(new RequestError("loading", "Cannot answer: the service is starting"))),
  onRefused: () => {},
  onError: () => {},
};

/** Listens from its making; `close` must be called, after `shutdown` or instead. */
export class HttpServer {
  readonly #server: http.Server;
  readonly #connections: Connections;
  /** Of each request, for the adapter's callback, which is not given it. */
  readonly #peers = new WeakMap<object, Peer>();
  #handler = STARTING;
  #watch: AcceptWatch | undefined;
  #accepted = 0;

  private constructor({ tls, ...options }: HttpServerOptions) {
    const limits = { ...CONNECTION_DEFAULTS, ...options };
    const onSlowHead = (socket: Socket) => this.#refuse(socket, slowHead(limits.headMs));
    this.#connections = new Connections(limits, onSlowHead);
    this.#server = createServer(tls, limits);
    // Dropped before anything is made of them: a burst must not use up the descriptors while others are being closed.
    this.#server.maxConnections = limits.maxConnections + CLOSING_CONNECTIONS;
    this.#server.on("connection", (socket: Socket) => {
      this.#accepted++;
      this.#connections.add(socket);
    });
    this.#server.on("drop", () => this.#accepted++);
    const onRequest = this.#requestListener();
    this.#server.on("request", onRequest);
    // Expectations that are not known here are ignored: node would answer them itself, and without a word.
    this.#server.on("checkExpectation", onRequest);
    this.#server.on("connect", (_: http.IncomingMessage, socket: Duplex) => {
      this.#refuse(socket as Socket, new RequestError("method_not_allowed", "Cannot CONNECT: this is not a proxy"));
    });
    this.#server.on("clientError", (error: Error, socket: Duplex) => {
      const refusal = malformedRequest(error);
      if (refusal === undefined) socket.destroy();
      else this.#refuse(socket as Socket, refusal);
    });
  }

  /**
   * Binds the address.
   * @throws {RequestError} `invalid_request` when it is taken, or none of this host's
   */
  static async listen(options: HttpServerOptions): Promise<HttpServer> {
    const { host, port } = options;
    const server = new HttpServer(options);
    const listening = Promise.withResolvers<void>();
    server.#server.once("error", listening.reject);
    server.#server.listen(port, host, listening.resolve);
    try {
      await listening.promise;
    } catch (cause) {
      await server.#connections.close();
      const isTaken = cause instanceof Error && "code" in cause && cause.code === "EADDRINUSE";
      const why = isTaken ? "something else listens there already" : String(cause);
      throw new RequestError("invalid_request", `Cannot listen on ${host}:${port}: ${why}`, { cause });
    }
    server.#server.on("error", (error) => server.#handler.onError(error));
    server.#watch = server.#watchAccepting();
    return server;
  }

  #watchAccepting(): AcceptWatch {
    const { hostname, port } = this.address;
    return new AcceptWatch({
      accepted: () => this.#accepted,
      address: () => ({ hostname, port }),
      reopen: () => {
        this.#handler.onError(new Error(`The listener on port ${port} had stopped accepting and is opened again`));
        this.#server.close();
        this.#server.listen(port, hostname);
      },
    });
  }

  /** Hands requests to a handler from now on; before, clients get an error that says that the service is starting. */
  serve(handler: RequestHandler): void {
    this.#handler = handler;
  }

  /** @throws {Error} once it has stopped listening */
  get address(): Deno.NetAddr {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("Cannot read the address: it is not bound");
    return { transport: "tcp", hostname: address.address, port: address.port };
  }

  /** Connections open now. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Takes no new connections, and closes each once it is answered; resolves when all are closed. */
  async shutdown(): Promise<void> {
    await this.#stopListening();
    await this.#connections.drain();
  }

  /** Cuts everything off. */
  async close(): Promise<void> {
    await this.#stopListening();
    await this.#connections.close();
  }

  async #stopListening(): Promise<void> {
    if (this.#server.listening) this.#server.close();
    await this.#watch?.close();
  }

  #requestListener(): http.RequestListener {
    const answer = getRequestListener(
      async (request, { outgoing }) => {
        const response = await this.#handler.answer(request, this.#peers.get(outgoing) as Peer);
        return cutOnFailure(response, outgoing as http.ServerResponse, this.#handler.onError);
      },
      // The host name stands in for that of HTTP/1.0 requests without one.
      { overrideGlobalObjects: false, hostname: "localhost", errorHandler: (error) => this.#failed(error) },
    );
    return (request, response) => {
      const malformed = new AbortController();
      this.#peers.set(response, peerOf(request.socket as Socket, response, malformed.signal));
      this.#connections.answer(request.socket as Socket, response, malformed, () => {
        const refusal = malformedHead(request);
        if (refusal === undefined) return void answer(request, response);
        this.#handler.onRefused(addressOf(request.socket as Socket), refusal);
        const { status, body } = describeError(refusal);
        response.shouldKeepAlive = false;
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
      });
    };
  }

  #failed(error: unknown): Response {
    this.#handler.onError(error);
    return errorResponse(error);
  }

  /** HTTP cannot use the connection any longer: its client is sent the reason, and may read it for a moment. */
  #refuse(socket: Socket, error: RequestError): void {
    // What follows a refused head fails again, and an answer that is under way must not be mixed with another.
    if (!this.#connections.refuse(socket, error)) return;
    this.#handler.onRefused(addressOf(socket), error);
    if (socket.writable) writeRawAnswer(socket, error);
    else socket.destroy();
  }
}

function createServer(tls: TlsFiles | undefined, { idleMs }: ConnectionLimits): http.Server {
  const options: http.ServerOptions = {
    keepAliveTimeout: idleMs,
    // `Connections` and the reader of bodies keep these times; node's own timers would answer in another form.
    headersTimeout: 0,
    requestTimeout: 0,
    // So that a missing one is refused in our form.
    requireHostHeader: false,
  };
  return tls === undefined ? http.createServer(options) : https.createServer({ ...options, ...tls });
}

function peerOf(socket: Socket, response: http.ServerResponse, malformed: AbortSignal): Peer {
  return { address: addressOf(socket), malformed, onClosed: (callback) => void response.once("close", callback) };
}

/** An IPv4 address stays one on a socket that listens for both families. */
function addressOf({ remoteAddress = "unknown" }: Socket): string {
  return remoteAddress.replace(/^::ffff:(?=\d+\.)/, "");
}

function errorResponse(error: unknown): Response {
  const { status, headers, body } = describeError(error);
  return Response.json(body, { status, headers });
}

/** A body that fails must not look as if it had ended: the connection is cut instead. */
function cutOnFailure(response: Response, outgoing: http.ServerResponse, onError: (error: unknown) => void): Response {
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream") ?? false;
  if (!isStream || response.body === null) return response;
  const reader = response.body.getReader();
  let isCancelled = false;
  const next = async () => {
    try {
      return await reader.read();
    } catch (error) {
      // The client's silence is a `DOMException`; anything else is our own.
      if (!(error instanceof DOMException)) onError(error);
      outgoing.destroy();
      return { done: true, value: undefined } as const;
    }
  };
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await next();
      // A read that was under way when the client left ends too, and there is nothing to end any more.
      if (isCancelled) return;
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel(reason) {
      isCancelled = true;
      return reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
  return new Response(body, response);
}
