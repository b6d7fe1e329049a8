/** How far a batch has come, here or on another worker, for those after it: their rows see what its rows append. */

/** See the top of this file. */
export class PassProgress {
  readonly #layers: readonly PromiseWithResolvers<void>[];

  constructor(layers: number) {
    this.#layers = Array.from({ length: layers }, () => Promise.withResolvers<void>());
    // It may fail before anything waits for it.
    for (const { promise } of this.#layers) promise.catch(() => {});
  }

  /** What appends the keys and values of its rows in a layer is recorded. */
  reach(layer: number): void {
    this.#layers[layer]?.resolve();
  }

  /** It will reach no further layer. */
  fail(error: unknown): void {
    for (const { reject } of this.#layers) reject(error);
  }

  /** Waits until it has reached a layer; rejects with what made it fail before. */
  reached(layer: number): Promise<void> {
    return this.#layers[layer]?.promise ?? Promise.resolve();
  }
}
