/**
 * Under which host names the service answers. A page whose name an attacker points at 127.0.0.1 (DNS rebinding) is of the
 * same origin as the service in the eyes of a browser; only the Host header still shows it.
 */

import { RequestError, UsageError } from "../errors.ts";

/** The names of one service. */
export class AllowedHosts {
  readonly #names: ReadonlySet<string>;
  readonly #isOpen: boolean;
  readonly #allowsAddresses: boolean;

  /**
   * @param bound the address it listens on: on loopback, loopback names alone are allowed besides `names`; elsewhere every
   * name is, unless `names` says which, and then IP addresses beside them, which need no DNS that could lie
   * @param names host names without ports
   * @throws {UsageError} for what is no host name
   */
  constructor(bound: string, names: readonly string[]) {
    this.#names = new Set(names.map(parseName));
    this.#isOpen = !isLoopback(bound) && names.length === 0;
    this.#allowsAddresses = !isLoopback(bound);
  }

  /**
   * Whether a host is surely this service: a loopback name, an IP address, or a name that the operator gave. A name that is
   * answered only because all are may be a stranger's, who points it here.
   */
  knows(host: string): boolean {
    const name = normalized(host);
    return this.#names.has(name) || isLoopback(name) || isAddress(name);
  }

  /**
   * @param host of the request's URL, as `URL.hostname` has it
   * @throws {RequestError} `host_not_allowed`
   */
  check(host: string): void {
    const name = normalized(host);
    if (this.#isOpen || this.#names.has(name) || isLoopback(name)) return;
    if (this.#allowsAddresses && isAddress(name)) return;
    const shown = name.length <= 100 ? name : `${name.slice(0, 100)}…`;
    throw new RequestError(
      "host_not_allowed",
      `Cannot answer for the host ${shown}: the service does not go by this name (--allow-host)`,
    );
  }
}

/** Whether an address or name is this machine itself. */
export function isLoopback(host: string): boolean {
  const name = normalized(host);
  return name === "localhost" || name.endsWith(".localhost") || name === "::1" || /^127(?:\.\d{1,3}){3}$/.test(name);
}

function isAddress(name: string): boolean {
  return name.includes(":") || /^\d{1,3}(?:\.\d{1,3}){3}$/.test(name);
}

/** Without brackets and the dot of a full name. */
function normalized(host: string): string {
  return host.toLowerCase().replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "");
}

function parseName(text: string): string {
  const isName = !/[\s/?#@\\]|:\d+$/.test(text) && URL.canParse(`http://${text}`);
  if (isName) return normalized(new URL(`http://${text}`).hostname);
  throw new UsageError(`Cannot allow host: must be a host name without a port, given "${text}"`);
}
