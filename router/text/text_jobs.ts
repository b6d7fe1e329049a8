/**
 * The jobs of the text side, as both ends of its threads see them: what goes in, what comes out, and how errors cross.
 */

import { CodedError, messageOf } from "../../kernels/errors.ts";
import { RequestError, type RequestErrorCode } from "../errors.ts";
import type { TokenCount } from "./messages_request.ts";
import type { DetokenizeAnswer, TokenizeAnswer } from "./tokenize.ts";
import type { ModelTextSource } from "./model_text.ts";
import type { PrepareContext, PreparedGeneration } from "./prepare.ts";

/** The jobs, and what each gives back. */
export interface TextResults {
  readonly chat: PreparedGeneration;
  readonly completion: PreparedGeneration;
  readonly responses: PreparedGeneration;
  readonly messages: PreparedGeneration;
  readonly countTokens: TokenCount;
  readonly tokenize: TokenizeAnswer;
  readonly detokenize: DetokenizeAnswer;
}

/** What a job is given. */
export interface TextInput {
  /** The body as it came; transferred, so it is gone for the caller. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly context: PrepareContext;
  /** Drops the job if it has not begun. */
  readonly signal?: AbortSignal;
}

/** What HTTP asks of the text side. */
export interface TextService {
  /** @throws {CodedError} what the job threw; `queue_timeout`, `deadline_exceeded` */
  run<Kind extends keyof TextResults>(kind: Kind, input: TextInput): Promise<TextResults[Kind]>;
}

/** From the owner to the thread. */
export type ToTextWorker =
  | { readonly kind: "load"; readonly source: ModelTextSource }
  | {
    readonly kind: "job";
    readonly job: keyof TextResults;
    readonly bytes: Uint8Array;
    readonly context: PrepareContext;
  };

/** An error as plain data: classes do not survive the passage between threads. */
export interface FlatError {
  readonly family: "request" | "coded" | "unknown";
  readonly code: string;
  readonly message: string;
  readonly param: string | undefined;
}

/** From the thread to its owner: one for each message to it. */
export type FromTextWorker =
  | { readonly kind: "loaded" }
  | { readonly kind: "done"; readonly result: TextResults[keyof TextResults] }
  | { readonly kind: "failed"; readonly error: FlatError };

/** Makes an error ready to leave its thread. */
export function flattenError(error: unknown): FlatError {
  const message = messageOf(error);
  const code = error instanceof CodedError ? error.code : "internal_error";
  if (error instanceof RequestError) return { family: "request", code, message, param: error.param };
  return { family: error instanceof CodedError ? "coded" : "unknown", code, message, param: undefined };
}

/** The error that was flattened, but for its cause and stack. */
export function unflattenError({ family, code, message, param }: FlatError): Error {
  if (family === "unknown") return new Error(message);
  if (family === "coded") return new CodedError(code, message);
  return new RequestError(code as RequestErrorCode, message, param === undefined ? {} : { param });
}
