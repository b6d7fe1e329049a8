/**
 * What an operator decides about who may use a service and how it is reached: keys, origins, host names, bounds, TLS.
 * Knows names, defaults and bounds; reads no file.
 */

import type { Flags } from "../command.ts";
import { UsageError } from "../errors.ts";
import type { TlsPaths } from "../host/tls_files.ts";
import { AllowedHosts } from "./allowed_hosts.ts";
import { AllowedOrigins } from "./allowed_origins.ts";

/** What an operator may say about access; the fields of `ServiceConfig` of the same names. */
export interface AccessChoice {
  readonly apiKeyFile?: string | undefined;
  readonly allowOrigin?: readonly string[] | undefined;
  readonly allowHost?: readonly string[] | undefined;
  readonly maxRequestsPerClient?: number | undefined;
  readonly maxConnections?: number | undefined;
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
}

/** An `AccessChoice`, checked. */
export interface ResolvedAccess {
  /** Undefined: anyone may ask. */
  readonly apiKeyFile: string | undefined;
  readonly allowOrigin: readonly string[];
  readonly allowHost: readonly string[];
  /** Undefined: any number. */
  readonly maxRequestsPerClient: number | undefined;
  /** Undefined: what the file descriptors allow. */
  readonly maxConnections: number | undefined;
  /** Undefined: clear text. */
  readonly tls: TlsPaths | undefined;
}

const BOUNDS = {
  maxRequestsPerClient: { min: 1, max: 65_536 },
  maxConnections: { min: 1, max: 1_000_000 },
} as const;

/** Flags of `serve` about access. */
export const ACCESS_FLAGS = {
  apiKeyFile: {
    kind: "text",
    value: "FILE",
    help: "file of name:key lines; requests without one of these keys get 401 (default: no keys, anyone may ask)",
  },
  allowOrigin: {
    kind: "text",
    value: "ORIGIN,…",
    help: "origins of web pages that may use the API, e.g. https://app.example; all others get 403",
  },
  allowHost: {
    kind: "text",
    value: "NAME,…",
    help: "host names to answer to besides loopback's (default: none when listening on loopback, otherwise any)",
  },
  maxRequestsPerClient: {
    kind: "integer",
    ...BOUNDS.maxRequestsPerClient,
    help: "requests one key (without keys: one address) may run at once; further ones get 429 (default: no limit)",
  },
  maxConnections: {
    kind: "integer",
    ...BOUNDS.maxConnections,
    help: "most open connections (default: three quarters of the file descriptors, at most 4096)",
  },
  tlsCert: {
    kind: "text",
    value: "FILE",
    help: "certificate (PEM), followed by its issuers' certificates; serves HTTPS",
  },
  tlsKey: { kind: "text", value: "FILE", help: "private key of the certificate (PEM)" },
} as const satisfies Flags;

/**
 * Fills in what is left out and checks the rest.
 * @param host the address that is listened on
 * @throws {UsageError}
 */
export function resolveAccess(choice: AccessChoice, host: string): ResolvedAccess {
  for (const name of ["maxRequestsPerClient", "maxConnections"] as const) checkNumber(name, choice[name]);
  const { allowOrigin = [], allowHost = [] } = choice;
  // Both check what they are given.
  new AllowedOrigins(allowOrigin);
  new AllowedHosts(host, allowHost);
  return {
    apiKeyFile: choice.apiKeyFile,
    allowOrigin,
    allowHost,
    maxRequestsPerClient: choice.maxRequestsPerClient,
    maxConnections: choice.maxConnections,
    tls: tlsOf(choice),
  };
}

/** The items of a comma-separated flag. */
export function listOf(text: string): readonly string[] {
  return text.split(",").map((item) => item.trim());
}

function tlsOf({ tlsCert, tlsKey }: AccessChoice): TlsPaths | undefined {
  if (tlsCert === undefined && tlsKey === undefined) return undefined;
  if (tlsCert !== undefined && tlsKey !== undefined) return { cert: tlsCert, key: tlsKey };
  const missing = tlsCert === undefined ? "--tls-cert" : "--tls-key";
  throw new UsageError(`Cannot serve HTTPS: a certificate and its key are needed, ${missing} is missing`);
}

function checkNumber(name: keyof typeof BOUNDS, value: number | undefined): void {
  const { min, max } = BOUNDS[name];
  if (value === undefined || (Number.isInteger(value) && value >= min && value <= max)) return;
  throw new UsageError(`Cannot configure ${name}: must be an integer from ${min} to ${max}, given ${value}`);
}
