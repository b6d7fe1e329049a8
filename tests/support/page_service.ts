/**
 * The application and its page on a socket, behind keys, with scripted answers: everything but the GPU. It can go away and
 * come back on the same port, as a service that is started again does.
 */

import { AccessControl } from "../../router/access/access_control.ts";
import { AllowedHosts } from "../../router/access/allowed_hosts.ts";
import { AllowedOrigins } from "../../router/access/allowed_origins.ts";
import { ApiKeys } from "../../router/access/api_keys.ts";
import { ClientQuota } from "../../router/access/client_quota.ts";
import { HttpServer } from "../../router/server/http_server.ts";
import type { AppDeps } from "../../router/http/app.ts";
import type { SelectionReader } from "../../router/scheduling/selection_view.ts";
import { TideFeed } from "../../router/scheduling/tide_feed.ts";
import { freePort } from "./free_port.ts";
import { TestService } from "./test_service.ts";

/** Answers are over before they can be watched. */
const NOTHING: SelectionReader = { read: () => undefined, watch: () => TideFeed.ended() };

/** What a test may set. */
export interface PageServiceOptions {
  /** Text of a key file. */
  readonly keys?: string;
  readonly deps?: Partial<AppDeps>;
}

/** A service that serves the page. */
export class PageService implements AsyncDisposable {
  readonly service: TestService;
  readonly #control: AccessControl;
  #server: HttpServer | undefined;
  readonly #port = freePort();

  private constructor(service: TestService, keys: string | undefined) {
    this.service = service;
    this.#control = new AccessControl((request) => service.app.fetch(request), {
      hosts: new AllowedHosts("127.0.0.1", []),
      origins: new AllowedOrigins([]),
      keys: keys === undefined ? undefined : ApiKeys.parse(keys),
      quota: new ClientQuota(undefined),
      onAnswered: () => {},
      onInternalError: (error) => service.internalErrors.push(error),
    });
  }

  static async start({ keys, deps = {} }: PageServiceOptions = {}): Promise<PageService> {
    const mount: AppDeps["mount"] = (app) => void app.get("/metrics", (c) => c.text("tidepool_step_seconds_count 3\n"));
    const served = new PageService(await TestService.open({ mount, selections: NOTHING, ...deps }), keys);
    await served.comeBack();
    return served;
  }

  get origin(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Cuts all connections and takes no more. */
  async goAway(): Promise<void> {
    await this.#server?.close();
    this.#server = undefined;
  }

  /** Listens again where it did. */
  async comeBack(): Promise<void> {
    const server = await HttpServer.listen({ host: "127.0.0.1", port: this.#port, maxConnections: 64, tls: undefined });
    server.serve({
      answer: (request, peer) => this.#control.answer(request, peer),
      onRefused: () => {},
      onError: (error) => void this.service.internalErrors.push(error),
    });
    this.#server = server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.goAway();
    this.service[Symbol.dispose]();
  }
}
