/** What a worker says of itself where routers look for workers. Knows its text form; knows no server. */

import { PROTOCOL_VERSION } from "../../../workers/protocol.ts";
import { parseAddress } from "../../host/address.ts";
import { UsageError } from "../../errors.ts";

/** What a router reads before it dials. */
export interface Announcement {
  /** `host:port` where routers and other workers reach it. */
  readonly address: string;
  /** Version of the protocol that it speaks. */
  readonly protocol: number;
  /** Version of the program. */
  readonly version: string;
  /** What it has loaded; absent before. */
  readonly loaded?: {
    readonly adapter: string;
    /** Of the model. */
    readonly digest: string;
    readonly kvTokens: number;
  };
}

/** A worker that was read from an announcement, and why it cannot be used, if so. */
export interface Announced {
  readonly address: { readonly hostname: string; readonly port: number };
  readonly refusal?: string;
}

/**
 * Reads what anyone with access to the server may have written; undefined when it is no announcement at all, which
 * leads to no worker.
 */
export function readAnnouncement(text: string, protocol: number = PROTOCOL_VERSION): Announced | undefined {
  const value = parseJson(text);
  if (typeof value?.address !== "string") return undefined;
  const address = addressOf(value.address);
  if (address === undefined || value.protocol === protocol) return address && { address };
  const version = typeof value.version === "string" ? ` (tidepool ${value.version.slice(0, 64)})` : "";
  const spoken = typeof value.protocol === "number" ? value.protocol : "none";
  return { address, refusal: `it speaks protocol version ${spoken}${version}, this router ${protocol}` };
}

function parseJson(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? { ...value } : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function addressOf(text: string): Announced["address"] | undefined {
  try {
    return parseAddress(text);
  } catch (error) {
    if (error instanceof UsageError) return undefined;
    throw error;
  }
}
