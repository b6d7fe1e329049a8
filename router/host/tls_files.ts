/** Certificates and keys as files: of the HTTP server, and between router and workers. Read once, at the start. */

import { createPrivateKey, X509Certificate } from "node:crypto";

import type { TlsTrust } from "../../workers/transport.ts";
import { UsageError } from "../errors.ts";

/** Both as PEM. */
export interface TlsFiles {
  /** With the certificates of its issuers after it. */
  readonly cert: string;
  readonly key: string;
}

/** Paths; both or neither. */
export interface TlsPaths {
  readonly cert: string;
  readonly key: string;
}

/**
 * Reads both files.
 * @throws {UsageError} naming the file that cannot be read or holds no such thing
 */
export async function readTlsFiles(paths: TlsPaths): Promise<TlsFiles> {
  const cert = await readPem("--tls-cert", paths.cert, "CERTIFICATE");
  const key = await readPem("--tls-key", paths.key, "PRIVATE KEY");
  checkPair(cert, key);
  return { cert, key };
}

/**
 * Reads the certificates that those of joined workers are checked against.
 * @throws {UsageError}
 */
export async function readTrust({ ca, name }: { readonly ca: string; readonly name?: string }): Promise<TlsTrust> {
  return { ca: await readPem("--join-tls-ca", ca, "CERTIFICATE"), ...(name === undefined ? {} : { name }) };
}

/** A server would take both as they are, and fail at every handshake. */
function checkPair(cert: string, key: string): void {
  let isPair: boolean;
  try {
    isPair = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    if (error instanceof Error) throw new UsageError(`Cannot use --tls-cert and --tls-key: ${error.message}`);
    throw error;
  }
  if (!isPair) throw new UsageError("Cannot use --tls-key: it is not the key of the certificate");
}

async function readPem(flag: string, path: string, label: string): Promise<string> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Error) throw new UsageError(`Cannot read ${flag}: ${error.message}`);
    throw error;
  }
  if (new RegExp(`-----BEGIN [A-Z ]*${label}-----`).test(text)) return text;
  throw new UsageError(`Cannot use ${flag}: ${path} holds no ${label} in PEM form`);
}
