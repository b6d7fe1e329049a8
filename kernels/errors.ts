/**
 * Errors with a code, and the closed family that the GPU layer raises.
 * Knows nothing of HTTP: `router/errors.ts` alone turns codes into statuses.
 */

/** An error whose `code` survives the way from a worker process to an HTTP client. */
export class CodedError<Code extends string = string> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** What can go wrong at the device. */
export type GpuErrorCode =
  | "no_adapter"
  | "provider_unavailable"
  | "out_of_gpu_memory"
  | "device_lost"
  | "invalid_shape"
  | "shader_error";

/** Raised by `kernels/`. */
export class GpuError extends CodedError<GpuErrorCode> {}

/** What was thrown, in words: anything can be. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
