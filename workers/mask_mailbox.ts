/**
 * Masks that a step waits for while its rows are computed: from the moment it is received until it is over. Knows steps
 * by index; knows nothing of what masks say.
 */

import type { LateMasks, Step } from "../engine/span.ts";
import { PeerError } from "./errors.ts";

interface Expected extends PromiseWithResolvers<Uint32Array> {
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** See the top of this file; `close` must be called */
export class MaskMailbox {
  /** At most as many as there are steps that were not answered, which the session bounds. */
  readonly #expected = new Map<number, Expected>();

  /** A step was received; what it lacks may come from now on. */
  expect({ index, spans }: Step): void {
    if (!spans.some(({ masksFollow }) => masksFollow)) return;
    const expected: Expected = { ...Promise.withResolvers<Uint32Array>(), timer: undefined };
    // A step that is refused, and one of a worker that does not draw, never looks.
    expected.promise.catch(() => {});
    this.#expected.set(index, expected);
  }

  /** Hands masks on; those of a step that is over, because it was refused or its epoch ended, are dropped. */
  put(step: number, masks: Uint32Array): void {
    this.#expected.get(step)?.resolve(masks);
  }

  /** A step begins. @returns what it may wait for until its deadline; undefined: it has all its masks */
  begin({ index, deadlineMs }: Step): LateMasks | undefined {
    const expected = this.#expected.get(index);
    if (expected === undefined) return undefined;
    const message = `Cannot draw in step ${index}: its masks did not come within ${deadlineMs} ms`;
    expected.timer = setTimeout(() => expected.reject(new PeerError("peer_late", message)), deadlineMs);
    return expected.promise;
  }

  /** A step is over. */
  end({ index }: Step): void {
    clearTimeout(this.#expected.get(index)?.timer);
    this.#expected.delete(index);
  }

  /** No masks come any more: steps that wait for some end. */
  close(): void {
    const over = new PeerError("epoch_over", "Cannot finish step: the epoch is over, and its masks will not come");
    for (const { reject, timer } of this.#expected.values()) {
      clearTimeout(timer);
      reject(over);
    }
    this.#expected.clear();
  }
}
