/**
 * The only table from error codes to HTTP statuses, OpenAI error types and retry advice.
 * Knows codes; knows nothing of how errors come about.
 */

import type { EngineErrorCode } from "../engine/errors.ts";
import { CodedError, type GpuErrorCode } from "../kernels/errors.ts";
import type { LinkErrorCode, ProtocolError } from "../workers/errors.ts";

/** What the router itself refuses or fails with. */
export type RequestErrorCode =
  | "invalid_request"
  | "invalid_api_key"
  | "origin_not_allowed"
  | "host_not_allowed"
  | "context_length_exceeded"
  | "model_not_found"
  | "not_found"
  | "method_not_allowed"
  | "request_too_large"
  | "headers_too_large"
  | "request_timeout"
  | "rate_limit_exceeded"
  | "queue_full"
  | "queue_timeout"
  | "loading"
  | "draining"
  | "group_unavailable"
  | "worker_lost"
  | "deadline_exceeded"
  | "selection_unavailable"
  | "unsupported";

/** Raised by `router/`. */
export class RequestError extends CodedError<RequestErrorCode> {
  /** The request field at fault, as the client wrote it. */
  readonly param: string | undefined;

  constructor(code: RequestErrorCode, message: string, options: ErrorOptions & { param?: string } = {}) {
    super(code, message, options);
    this.param = options.param;
  }
}

/** A field asks for something that is not there. */
export function unsupported(param: string, message: string): RequestError {
  return new RequestError("unsupported", message, { param });
}

/** A mistake in flags, variables, files or a configuration: one line on stderr, exit code 2. */
export class UsageError extends RequestError {
  constructor(message: string) {
    super("invalid_request", message);
  }
}

/** How an error code looks to a client. */
export interface ErrorRow {
  readonly status: 400 | 401 | 403 | 404 | 405 | 408 | 409 | 413 | 429 | 431 | 500 | 503 | 504;
  /** The `type` of the OpenAI envelope. */
  readonly type: "invalid_request_error" | "timeout" | "rate_limit_error" | "server_error";
  /** Seconds; official clients ignore values above 60. */
  readonly retryAfter?: number;
  /** The same request will fail again: official clients, which retry every status from 500 on, stop. */
  readonly permanent?: true;
  /** The message reveals internals: the client gets a neutral one, the operator the real one. */
  readonly internal?: true;
}

/** One row for each code that can reach a client. */
export const ERROR_TABLE = {
  invalid_request: { status: 400, type: "invalid_request_error" },
  invalid_text: { status: 400, type: "invalid_request_error" },
  unsupported: { status: 400, type: "invalid_request_error" },
  context_length_exceeded: { status: 400, type: "invalid_request_error" },
  invalid_api_key: { status: 401, type: "invalid_request_error" },
  origin_not_allowed: { status: 403, type: "invalid_request_error" },
  host_not_allowed: { status: 403, type: "invalid_request_error" },
  model_not_found: { status: 404, type: "invalid_request_error" },
  not_found: { status: 404, type: "invalid_request_error" },
  method_not_allowed: { status: 405, type: "invalid_request_error" },
  request_timeout: { status: 408, type: "timeout" },
  queue_timeout: { status: 408, type: "timeout", retryAfter: 5 },
  selection_unavailable: { status: 409, type: "invalid_request_error" },
  request_too_large: { status: 413, type: "invalid_request_error" },
  headers_too_large: { status: 431, type: "invalid_request_error" },
  rate_limit_exceeded: { status: 429, type: "rate_limit_error", retryAfter: 2 },
  queue_full: { status: 429, type: "rate_limit_error", retryAfter: 5 },
  loading: { status: 503, type: "server_error", retryAfter: 5 },
  draining: { status: 503, type: "server_error", retryAfter: 10 },
  group_unavailable: { status: 503, type: "server_error", retryAfter: 5 },
  worker_lost: { status: 503, type: "server_error", retryAfter: 5 },
  kv_exhausted: { status: 503, type: "server_error", retryAfter: 5 },
  out_of_gpu_memory: { status: 503, type: "server_error", retryAfter: 10 },
  device_lost: { status: 503, type: "server_error", retryAfter: 10 },
  no_adapter: { status: 503, type: "server_error", permanent: true },
  provider_unavailable: { status: 503, type: "server_error", permanent: true },
  deadline_exceeded: { status: 504, type: "server_error", retryAfter: 5 },
  link_closed: { status: 503, type: "server_error", retryAfter: 5, internal: true },
  link_timeout: { status: 503, type: "server_error", retryAfter: 5, internal: true },
  link_overflow: { status: 503, type: "server_error", retryAfter: 5, internal: true },
  protocol: { status: 500, type: "server_error", internal: true },
  invalid_model: { status: 500, type: "server_error", permanent: true, internal: true },
  unsupported_model: { status: 500, type: "server_error", permanent: true, internal: true },
  invalid_step: { status: 500, type: "server_error", internal: true },
  invalid_shape: { status: 500, type: "server_error", internal: true },
  shader_error: { status: 500, type: "server_error", internal: true },
} as const satisfies Record<
  RequestErrorCode | EngineErrorCode | GpuErrorCode | LinkErrorCode | ProtocolError["code"],
  ErrorRow
>;

const UNKNOWN: ErrorRow = { status: 500, type: "server_error", internal: true };

/** The envelope that every failed request gets, also as an SSE event. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: ErrorRow["type"];
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** An error, ready for the wire. */
export interface ErrorAnswer {
  readonly status: ErrorRow["status"];
  readonly headers: Readonly<Record<string, string>>;
  readonly body: ErrorBody;
  /** The cause was kept from the client, so it belongs in the log. */
  readonly internal: boolean;
}

/** The row of a code; codes without one count as internal errors. */
function errorRow(code: string): ErrorRow {
  return Object.hasOwn(ERROR_TABLE, code) ? ERROR_TABLE[code as keyof typeof ERROR_TABLE] : UNKNOWN;
}

/** The code of an error for the wire, metrics and logs; `internal_error` for anything without a row. */
export function errorCode(error: unknown): string {
  return error instanceof CodedError && errorRow(error.code) !== UNKNOWN ? error.code : "internal_error";
}

/** An error that carries a code: as it is, or as the group's fault. @param action what could not be done */
export function asCodedError(error: unknown, action: string): CodedError {
  if (error instanceof CodedError) return error;
  return new RequestError("group_unavailable", `Cannot ${action}: ${error}`, { cause: error });
}

/** Turns whatever was thrown into status, headers and body; never leaks the message of an internal error. */
export function describeError(error: unknown): ErrorAnswer {
  const code = errorCode(error);
  const row = errorRow(code);
  const internal = row.internal === true || !(error instanceof Error);
  const headers: Record<string, string> = {};
  if (row.retryAfter !== undefined) headers["retry-after"] = String(row.retryAfter);
  if (row.permanent) headers["x-should-retry"] = "false";
  // A kept-alive connection would bring the next request here again.
  if (code === "draining") headers["connection"] = "close";
  if (code === "invalid_api_key") headers["www-authenticate"] = "Bearer";
  return {
    status: row.status,
    headers,
    internal,
    body: {
      error: {
        message: internal ? "Cannot answer: internal error; it is in the log" : error.message,
        type: row.type,
        param: error instanceof RequestError ? error.param ?? null : null,
        // OpenAI's own: a plainly invalid request carries no code.
        code: code === "invalid_request" ? null : code,
      },
    },
  };
}
