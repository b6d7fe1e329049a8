/**
 * Which web pages may use the service. Browsers send a page's origin with what its scripts ask for; programs send none.
 * A page that is not allowed is refused before it costs anything: without that, any page that the operator happens to
 * visit could use the GPU, even one that cannot read the answer.
 */

import { RequestError, UsageError } from "../errors.ts";

/** Browsers may keep the answer to a preflight for so long, in seconds. */
const PREFLIGHT_SECONDS = 600;

/** Headers of answers that scripts may read, beside those that they always may. */
const EXPOSED = "x-request-id, retry-after, x-should-retry";

/** The origins an operator allows. */
export class AllowedOrigins {
  readonly #origins: ReadonlySet<string>;

  /**
   * @param origins as browsers send them, `https://app.example`; `*` allows every page
   * @throws {UsageError} for anything else
   */
  constructor(origins: readonly string[]) {
    for (const origin of origins) if (!isOrigin(origin)) throw notAnOrigin(origin);
    this.#origins = new Set(origins);
  }

  /**
   * Checks a request, and gives the headers that its answer needs.
   * @throws {RequestError} `origin_not_allowed`
   */
  headersFor(request: Request): Readonly<Record<string, string>> {
    const origin = request.headers.get("origin");
    if (origin === null) return {};
    if (!this.#origins.has(origin) && !this.#origins.has("*")) {
      const shown = origin.length <= 100 ? origin : `${origin.slice(0, 100)}…`;
      throw new RequestError(
        "origin_not_allowed",
        `Cannot answer a web page from ${shown}: the service does not allow this origin (--allow-origin, or --allow-host for its own page)`,
      );
    }
    return { "access-control-allow-origin": origin, "access-control-expose-headers": EXPOSED, "vary": "Origin" };
  }
}

/** Whether a request comes from a page of the host and port that it asks. */
export function isSameOrigin({ url, headers }: Request): boolean {
  const origin = headers.get("origin");
  // The scheme may differ: TLS can end before the service.
  return origin !== null && URL.canParse(origin) && new URL(origin).host === new URL(url).host;
}

/** Whether a browser asks what a script of an allowed page may send. */
export function isPreflight({ method, headers }: Request): boolean {
  return method === "OPTIONS" && headers.has("origin") && headers.has("access-control-request-method");
}

/** The answer to a preflight of an allowed origin. */
export function preflightAnswer({ headers }: Request, allowed: Readonly<Record<string, string>>): Response {
  return new Response(null, {
    status: 204,
    headers: {
      ...allowed,
      "vary": "Origin, Access-Control-Request-Headers",
      "access-control-allow-methods": "GET, HEAD, POST, DELETE",
      "access-control-allow-headers": headers.get("access-control-request-headers") ?? "authorization, content-type",
      "access-control-max-age": String(PREFLIGHT_SECONDS),
    },
  });
}

function isOrigin(text: string): boolean {
  if (text === "*" || text === "null") return true;
  return URL.canParse(text) && new URL(text).origin === text;
}

function notAnOrigin(text: string): UsageError {
  const meant = URL.canParse(text) && new URL(text).origin !== "null" ? ` (did you mean ${new URL(text).origin}?)` : "";
  return new UsageError(`Cannot allow origin: must be scheme://host[:port] or *, given "${text}"${meant}`);
}
