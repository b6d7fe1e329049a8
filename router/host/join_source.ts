/** What `--join` says about where workers are found. Parses text; resolves nothing. */

import type { Address } from "../../workers/protocol.ts";
import { formatAddress, parseAddress } from "./address.ts";
import { UsageError } from "../errors.ts";

/** Where workers that were started elsewhere are found. */
export type JoinSource =
  /** At these addresses. */
  | { readonly kind: "static"; readonly addresses: readonly Address[] }
  /** At every address that the name has (A and AAAA records), all at one port. */
  | ({ readonly kind: "dns" } & Address)
  /** At the targets and ports of the name's SRV records. */
  | { readonly kind: "srv"; readonly name: string }
  /** Where they have announced themselves, in a bucket of a NATS server. */
  | ({ readonly kind: "nats" } & NatsPlace);

/** A group's bucket on a NATS server. */
export interface NatsPlace {
  /** With credentials, if it needs some; never to be printed. */
  readonly url: string;
  /** The same without them. */
  readonly server: string;
  /** Workers and routers that name the same group find each other. */
  readonly group: string;
}

const GROUP = /^[A-Za-z0-9_-]{1,64}$/;
const NATS_PORT = 4222;

/**
 * Reads `host:port,…`, `dns:name:port`, `srv:name` or `nats://host:port/group`.
 * @throws {UsageError} naming what was given
 */
export function parseJoin(items: readonly string[]): JoinSource {
  const [first = "", ...others] = items;
  const [, scheme, rest = ""] = /^(dns|srv|nats|tls):(.*)$/.exec(first) ?? [];
  if (scheme === undefined || /^\d+$/.test(rest)) return { kind: "static", addresses: items.map(parseAddress) };
  if (others.length > 0) {
    throw new UsageError(`Cannot join workers: ${scheme}: stands alone, given ${others.length} further items`);
  }
  if (scheme === "dns") return { kind: "dns", ...parseAddress(rest) };
  if (scheme !== "srv") return { kind: "nats", ...parseNatsPlace(first) };
  if (/^[^\s:/]+$/.test(rest)) return { kind: "srv", name: rest };
  throw new UsageError(`Cannot join workers: must be srv:NAME, given "${first}"`);
}

/**
 * Reads `nats://[user:password@]host[:port]/group`; `tls:` in place of `nats:` insists on TLS.
 * @throws {UsageError} without the password
 */
export function parseNatsPlace(text: string): NatsPlace {
  const url = URL.parse(text);
  const group = url?.pathname.slice(1) ?? "";
  const isNats = url?.protocol === "nats:" || url?.protocol === "tls:";
  if (url === null || !isNats || url.hostname === "" || !GROUP.test(group)) {
    const shown = text.replace(/\/\/[^@/]*@/, "//…@");
    throw new UsageError(
      `Cannot use NATS: must be nats://HOST:PORT/GROUP, the group up to 64 letters, digits, - or _, given "${shown}"`,
    );
  }
  const host = `${url.hostname}:${url.port || NATS_PORT}`;
  const login = url.username === "" ? "" : `${url.username}${url.password === "" ? "" : `:${url.password}`}@`;
  return { url: `${url.protocol}//${login}${host}`, server: `${url.protocol}//${host}`, group };
}

/** For people: without credentials. */
export function describeJoin(source: JoinSource): string {
  switch (source.kind) {
    case "static":
      return source.addresses.map(formatAddress).join(",");
    case "dns":
      return `dns:${formatAddress(source)}`;
    case "srv":
      return `srv:${source.name}`;
    case "nats":
      return `${source.server}/${source.group}`;
  }
}
