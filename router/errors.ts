/**
 * The only table from error codes to HTTP statuses and OpenAI error types.
 * Knows codes; knows nothing of how errors come about.
 */

import { CodedError } from "../kernels/errors.ts";

/** What the router itself refuses or fails with. */
export type RequestErrorCode =
  | "invalid_request"
  | "context_length_exceeded"
  | "model_not_found"
  | "not_found"
  | "method_not_allowed"
  | "request_too_large"
  | "queue_full"
  | "queue_timeout"
  | "loading"
  | "draining"
  | "group_unavailable"
  | "worker_lost"
  | "deadline_exceeded"
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
