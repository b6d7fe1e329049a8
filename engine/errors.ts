/**
 * The closed family of errors that the engine raises; codes are stable, messages are for people.
 * Message grammar: action first, then the bound and the value given; no full stop.
 */

import { CodedError } from "../kernels/errors.ts";

/** What can go wrong in the engine. */
export type EngineErrorCode =
  /** A model file is missing, truncated, corrupt or contradicts its configuration. */
  | "invalid_model"
  /** The files are fine, but the architecture, dtype or option is not supported. */
  | "unsupported_model"
  /** No KV page is free, or a pool cannot hold what was asked of it. */
  | "kv_exhausted"
  /** A step contradicts the state it is applied to: a bug, never the client's mistake. */
  | "invalid_step"
  /** The text cannot be made into tokens or a prompt, e.g. the chat template refused. */
  | "invalid_text";

/** Raised by `engine/`. */
export class EngineError extends CodedError<EngineErrorCode> {}
