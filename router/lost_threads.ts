/**
 * Threads that were given up while they compute. Deno (seen with 2.9.6) ends a thread only at the next turn of its event loop:
 * until its computation is done, it keeps a core busy. So their number is bounded, and while it is reached their owner starts no
 * thread that might have to be given up too.
 */
export class LostThreads {
  readonly #most: number;
  readonly #computing = new Set<Worker>();

  /** @param most that compute at a time */
  constructor(most: number) {
    this.#most = most;
  }

  /** How many still compute. */
  get size(): number {
    return this.#computing.size;
  }

  /** Whether no other thread may be given up. */
  get isFull(): boolean {
    return this.#computing.size >= this.#most;
  }

  /** Lets a thread finish what it computes, and ends it at its next message. */
  add(worker: Worker): void {
    this.#computing.add(worker);
    worker.onmessage = () => this.#end(worker);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end(worker);
    };
  }

  /** Ends them all, each as soon as its computation is done. */
  close(): void {
    for (const worker of this.#computing) this.#end(worker);
  }

  #end(worker: Worker): void {
    this.#computing.delete(worker);
    worker.terminate();
  }
}
