/** Steps that a worker was asked for: they run in order, so their answers come in the same. */

import type { CodedError } from "../../kernels/errors.ts";
import type { WorkerMessage } from "../../workers/protocol.ts";

/** How a worker answers a step. */
export type StepAnswer = Extract<WorkerMessage, { kind: "result" | "refused" }>;

/** What all workers of a group must agree on. */
export function outcomeOf(answer: StepAnswer): string {
  return answer.kind === "result" ? "done" : answer.code;
}

interface StepRequest {
  readonly index: number;
  readonly resolve: (answer: StepAnswer) => void;
  readonly reject: (error: CodedError) => void;
}

/** Those of one worker; as many as its group lets run at a time. */
export class StepRequests {
  readonly #waiting: StepRequest[] = [];

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Waits for the answer to a step that was sent. */
  add(index: number): Promise<StepAnswer> {
    return new Promise((resolve, reject) => this.#waiting.push({ index, resolve, reject }));
  }

  /** @returns whether it is the answer to the oldest one */
  answer(answer: StepAnswer): boolean {
    const request = this.#waiting.shift();
    const index = answer.kind === "result" ? answer.result.index : answer.index;
    if (request === undefined) return false;
    if (request.index === index) request.resolve(answer);
    else this.#waiting.unshift(request);
    return request.index === index;
  }

  /** None of them will be answered. */
  fail(reason: CodedError): void {
    for (const { reject } of this.#waiting.splice(0)) reject(reason);
  }
}
