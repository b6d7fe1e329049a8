/**
 * Requests that are not valid HTTP: what is wrong with them, and how their client is answered when the parser gave up
 * before there was anything to answer. All in the one error envelope.
 */

import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";

import { describeError, RequestError } from "../errors.ts";

const REASONS: Readonly<Record<number, string>> = {
  400: "Bad Request",
  405: "Method Not Allowed",
  408: "Request Timeout",
  431: "Request Header Fields Too Large",
};

/**
 * What a failure of the HTTP parser means for the client.
 * @returns undefined when the connection merely broke
 */
export function malformedRequest(error: Error & { readonly code?: string }): RequestError | undefined {
  if (error.code === "HPE_HEADER_OVERFLOW") {
    return new RequestError("headers_too_large", "Cannot read the request: its head is larger than 16 KiB");
  }
  if (error.code === undefined || !error.code.startsWith("HPE_")) return undefined;
  return new RequestError("invalid_request", "Cannot read the request: it is not valid HTTP/1.1");
}

/** A head that did not come in time. */
export function slowHead(headMs: number): RequestError {
  return new RequestError("request_timeout", `Cannot read the request: its head took over ${headMs} ms`);
}

/** What is wrong with the host and target of a request that the parser took. */
export function malformedHead(request: IncomingMessage): RequestError | undefined {
  const { rawHeaders, httpVersion, url = "" } = request;
  const hosts = rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === "host");
  const refuse = (what: string) => new RequestError("invalid_request", `Cannot read the request: ${what}`);
  if (hosts.length > 1) return refuse("it has more than one Host header");
  const [host] = hosts;
  if (host === undefined && httpVersion !== "1.0") return refuse("it has no Host header");
  if (host !== undefined && !isHost(host)) return refuse("its Host header is not a host and port");
  if (!isTarget(url)) return refuse("its target is neither a path nor an http URL");
  return undefined;
}

function isHost(text: string): boolean {
  return !/[\s/?#@\\]/.test(text) && URL.canParse(`http://${text}`);
}

function isTarget(text: string): boolean {
  // Two slashes would begin a host.
  if (text.startsWith("/")) return URL.canParse(`http://localhost${text}`);
  return /^https?:\/\//i.test(text) && URL.canParse(text);
}

/** Writes an answer to a socket without a request, and ends the connection after it. */
export function writeRawAnswer(socket: Socket, error: RequestError): void {
  const { status, body } = describeError(error);
  const text = JSON.stringify(body);
  const head = [
    `HTTP/1.1 ${status} ${REASONS[status] ?? "Refused"}`,
    "content-type: application/json",
    `content-length: ${new TextEncoder().encode(text).byteLength}`,
    "connection: close",
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${text}`);
}
