/**
 * What every request passes before a route sees it: the host it names, the page it comes from, its key, and how many
 * requests its client runs already. Each gets its request id here and, unless a recorder follows it, its line in the log.
 */

import { errorBodyAt } from "../error_form.ts";
import { describeError, errorCode, RequestError } from "../errors.ts";
import type { AllowedHosts } from "./allowed_hosts.ts";
import { type AllowedOrigins, isPreflight, isSameOrigin, preflightAnswer } from "./allowed_origins.ts";
import { type ApiKeys, shownKey } from "./api_keys.ts";
import type { ClientQuota } from "./client_quota.ts";
import { attachContext, RequestContext, type RequestOrigin } from "./request_context.ts";

/** The client of a request; the HTTP server's `Peer` is one. */
export interface RequestPeer {
  readonly address: string;
  /** Aborted with a `RequestError` when the body of the request turns out not to be valid HTTP. */
  readonly malformed: AbortSignal;
  onClosed(callback: () => void): void;
}

/** An answered request, for the log. */
export interface AnsweredRequest {
  readonly origin: RequestOrigin;
  readonly status: number;
  /** Undefined when there was no error. */
  readonly errorCode: string | undefined;
  readonly totalMs: number;
}

/** Who may use a service, and who is notified. */
export interface AccessOptions {
  readonly hosts: AllowedHosts;
  readonly origins: AllowedOrigins;
  /** Undefined: anyone. */
  readonly keys: ApiKeys | undefined;
  readonly quota: ClientQuota;
  /** Called for each request that no recorder follows. */
  readonly onAnswered: (request: AnsweredRequest) => void;
  /** An error whose cause is kept from the client. */
  readonly onInternalError: (error: unknown) => void;
}

/** The routes. */
export type Application = (request: Request) => Response | Promise<Response>;

/** Open to anyone: probes and scrapers have no key, and the page is where people enter theirs. */
const OPEN_PATHS: ReadonlySet<string> = new Set(["/health", "/ready", "/"]);

/** What the page is made of. */
const PAGE_FILES = "/page/";

const MAX_PATH = 200;

const UNKNOWN_PATH = "(unknown)";

/** Guards an application. */
export class AccessControl {
  readonly #options: AccessOptions;
  readonly #application: Application;

  constructor(application: Application, options: AccessOptions) {
    this.#application = application;
    this.#options = options;
  }

  /** Answers a request, whatever it is; never rejects. */
  async answer(request: Request, peer: RequestPeer): Promise<Response> {
    const startedMs = performance.now();
    const { keys, onAnswered } = this.#options;
    const key = shownKey(request.headers);
    const origin = {
      requestId: requestIdOf(request),
      client: peer.address,
      key: key === undefined ? undefined : keys?.nameOf(key),
      method: request.method,
      path: new URL(request.url).pathname.slice(0, MAX_PATH),
    };
    const context = new RequestContext(origin, peer.malformed);
    attachContext(request, context);
    const response = await this.#answer(request, context, peer);
    response.headers.set("x-request-id", context.origin.requestId);
    if (!context.isRecorded) {
      const { errorCode } = context;
      // An unknown path is whatever the client wrote, secrets included.
      const origin = errorCode === "not_found" ? { ...context.origin, path: UNKNOWN_PATH } : context.origin;
      onAnswered({ origin, status: response.status, errorCode, totalMs: performance.now() - startedMs });
    }
    return response;
  }

  async #answer(request: Request, context: RequestContext, peer: RequestPeer): Promise<Response> {
    const { hosts, origins } = this.#options;
    let allowed: Readonly<Record<string, string>> = {};
    let response: Response;
    try {
      const { hostname } = new URL(request.url);
      hosts.check(hostname);
      // The service's own page; behind a name that might be a stranger's, it is a page like any other.
      const isOwnPage = isSameOrigin(request) && hosts.knows(hostname);
      if (!isOwnPage) allowed = origins.headersFor(request);
      if (isPreflight(request)) return preflightAnswer(request, allowed);
      if (!isOpen(context.origin.path)) this.#admit(context.origin, peer);
      response = await this.#application(request);
    } catch (error) {
      response = this.#refuse(error, context);
    }
    for (const [name, value] of Object.entries(allowed)) response.headers.set(name, value);
    return response;
  }

  /** @throws {RequestError} `invalid_api_key`, `rate_limit_exceeded` */
  #admit({ key, client }: RequestOrigin, peer: RequestPeer): void {
    const { keys, quota } = this.#options;
    if (keys !== undefined && key === undefined) {
      throw new RequestError(
        "invalid_api_key",
        "Cannot answer without a valid API key: expected the header Authorization: Bearer KEY",
      );
    }
    peer.onClosed(quota.take(key === undefined ? `address ${client}` : `key ${key}`));
  }

  #refuse(error: unknown, context: RequestContext): Response {
    const answer = describeError(error);
    const { status, headers, internal } = answer;
    if (internal) this.#options.onInternalError(error);
    context.fail(errorCode(error));
    return Response.json(errorBodyAt(context.origin.path, answer), { status, headers: { ...headers } });
  }
}

function isOpen(path: string): boolean {
  return OPEN_PATHS.has(path) || path.startsWith(PAGE_FILES);
}

/** The client's own id if it is a harmless one, so that its logs and ours meet. */
function requestIdOf({ headers }: Request): string {
  const given = headers.get("x-request-id");
  return given !== null && /^[\x21-\x7e]{1,128}$/.test(given) ? given : crypto.randomUUID();
}
