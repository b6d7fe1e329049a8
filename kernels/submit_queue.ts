/** Command buffers on their way to the device's queue. Knows their order; knows nothing of what they hold. */

/** Keeps what is complete until it is submitted, and what is submitted until it is released, where that must wait. */
export class SubmitQueue {
  readonly #device: GPUDevice;
  /** Complete, to be submitted ahead of what is recorded now. */
  #complete: GPUCommandBuffer[] = [];
  /** What waits for `release`; undefined: nothing has to. */
  #held: GPUCommandBuffer[] | undefined;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Whether there is nothing to submit. */
  get isEmpty(): boolean {
    return this.#complete.length === 0;
  }

  /** Whether something that was submitted waits for `release`. */
  get isHolding(): boolean {
    return this.#held !== undefined && this.#held.length > 0;
  }

  /** Takes a complete command buffer, to be submitted after those before it. */
  add(commands: GPUCommandBuffer): void {
    this.#complete.push(commands);
  }

  /** Submits what is complete, or holds it back. */
  submit(): void {
    const commands = this.#complete.splice(0);
    if (this.#held === undefined) this.#device.queue.submit(commands);
    else this.#held.push(...commands);
  }

  /** Holds back what is submitted from here on until `release`. */
  hold(): void {
    this.#held ??= [];
  }

  /** Submits what was held back, and holds nothing back any more. */
  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    if (held.length > 0) this.#device.queue.submit(held);
  }
}
