/** Command buffers on their way to the device's queue. Knows their order; knows nothing of what they hold. */

/** What was submitted from one `hold` to the next. */
export type HeldCommands = readonly GPUCommandBuffer[];

/** Keeps what is complete until it is submitted, and what is submitted until it is released, where that must wait. */
export class SubmitQueue {
  readonly #device: GPUDevice;
  /** Complete, to be submitted ahead of what is recorded now. */
  #complete: GPUCommandBuffer[] = [];
  /** What waits for `release`, oldest first; none: nothing has to. */
  #held: GPUCommandBuffer[][] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Whether there is nothing to submit. */
  get isEmpty(): boolean {
    return this.#complete.length === 0;
  }

  /** Whether something that was submitted waits for `release`. */
  get isHolding(): boolean {
    return this.#held.some((commands) => commands.length > 0);
  }

  /** Takes a complete command buffer, to be submitted after those before it. */
  add(commands: GPUCommandBuffer): void {
    this.#complete.push(commands);
  }

  /** Submits what is complete, or holds it back. */
  submit(): void {
    const commands = this.#complete.splice(0);
    const held = this.#held.at(-1);
    if (held === undefined) this.#device.queue.submit(commands);
    else held.push(...commands);
  }

  /** Holds back what is submitted from here on until it is released. */
  hold(): HeldCommands {
    const held: GPUCommandBuffer[] = [];
    this.#held.push(held);
    return held;
  }

  /**
   * Submits what was held back, and holds nothing back any more.
   * @param upTo the last of what is released; what came after it stays held back
   */
  release(upTo: HeldCommands | undefined = this.#held.at(-1)): void {
    const count = 1 + this.#held.findIndex((held) => held === upTo);
    const released = this.#held.splice(0, count).flat();
    if (released.length > 0) this.#device.queue.submit(released);
  }
}
