/** How far a pass has come, for the one that follows it closely: rows of this one see what rows of the other append. */

/** @see the file's paragraph */
export class PassProgress {
  readonly #layers: readonly PromiseWithResolvers<void>[];

  constructor(layers: number) {
    this.#layers = Array.from({ length: layers }, () => Promise.withResolvers<void>());
    // It may fail before anything waits for it.
    for (const { promise } of this.#layers) promise.catch(() => {});
  }

  /** The keys and values of its rows, and of those before it, are recorded in a layer: own ones and those of other workers. */
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
