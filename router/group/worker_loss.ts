/** Why a worker is lost, in words. */

import { messageOf } from "../../kernels/errors.ts";
import { RequestError } from "../errors.ts";

/** Its connection ended. */
export function connectionLost(cause: unknown): RequestError {
  const reason = messageOf(cause);
  return new RequestError("worker_lost", `Cannot reach worker: its connection ended: ${reason}`, { cause });
}

/** It broke the protocol. */
export function unexpected(kind: string): RequestError {
  return new RequestError("worker_lost", `Cannot use worker: it sent an unexpected ${kind}`);
}
