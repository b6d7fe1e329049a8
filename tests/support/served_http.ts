/** An HTTP server on a socket of its own, around a handler that a test gives. */

import assert from "node:assert/strict";
import { HttpServer, type HttpServerOptions, type RequestHandler } from "../../router/server/http_server.ts";
import { RawHttp } from "./raw_http.ts";

/** A server and what it saw; for `await using`. */
export class ServedHttp implements AsyncDisposable {
  readonly server: HttpServer;
  readonly refused: string[] = [];
  readonly errors: unknown[] = [];

  private constructor(server: HttpServer) {
    this.server = server;
  }

  static async open(
    answer: RequestHandler["answer"],
    options: Partial<HttpServerOptions> = {},
  ): Promise<ServedHttp> {
    const server = await HttpServer.listen({
      host: "127.0.0.1",
      port: 0,
      maxConnections: 100,
      tls: undefined,
      ...options,
    });
    const served = new ServedHttp(server);
    server.serve({
      answer,
      onRefused: (_, error) => void served.refused.push(error.code),
      onError: (error) => void served.errors.push(error),
    });
    return served;
  }

  get port(): number {
    return this.server.address.port;
  }

  connect(options?: { readonly reads?: boolean }): Promise<RawHttp> {
    return RawHttp.open(this.port, options);
  }

  async health(): Promise<number> {
    const response = await fetch(`http://127.0.0.1:${this.port}/health`, { headers: { connection: "close" } });
    await response.body?.cancel();
    return response.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close();
    assert.deepEqual(this.errors, []);
  }
}
