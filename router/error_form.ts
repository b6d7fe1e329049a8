/** The form of an error, by the API that was asked. Knows paths and errors; knows nothing of how these arise. */

import type { ErrorAnswer } from "./errors.ts";

type Json = Readonly<Record<string, unknown>>;

/** Anthropic's API, and all that lies below it. */
const MESSAGES_PATH = /^\/v1\/messages(\/|$)/;

const ERROR_TYPES: Readonly<Record<ErrorAnswer["status"], string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  405: "invalid_request_error",
  408: "timeout_error",
  409: "invalid_request_error",
  413: "request_too_large",
  429: "rate_limit_error",
  431: "invalid_request_error",
  500: "api_error",
  503: "overloaded_error",
  504: "timeout_error",
};

/** An error as the clients of a path expect it. */
export function errorBodyAt(path: string, answer: ErrorAnswer): unknown {
  return MESSAGES_PATH.test(path) ? messagesError(answer) : answer.body;
}

/** An error as Anthropic's clients expect it. */
export function messagesError({ status, body }: ErrorAnswer): Json {
  return { type: "error", error: { type: ERROR_TYPES[status], message: body.error.message } };
}
