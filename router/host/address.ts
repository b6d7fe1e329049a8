/** Host and port as people write them. Knows text; asks no resolver. */

import type { Address } from "../../workers/protocol.ts";
import { UsageError } from "../errors.ts";

/**
 * Reads `host:port` or `[IPv6 address]:port`.
 * @throws {UsageError} naming what was given
 */
export function parseAddress(text: string): Address {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text.trim()) ?? [];
  const hostname = bracketed ?? plain;
  const port = Number(digits);
  if (hostname !== undefined && port <= 65535) return { hostname, port };
  throw new UsageError(`Cannot parse address: must be host:port, given "${text}"`);
}

/** The inverse. */
export function formatAddress({ hostname, port }: Address): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}
