/**
 * Which positions the replicas of one KV head hold, and where: a bounded store whose contents follow from what was looked
 * up and added alone, so that all workers of a group know what each of them holds without asking. Knows positions and
 * slots; knows nothing of memory or workers.
 *
 * The least recently used gives way first (CLOCK: a slot that was used again since the hand passed it is spared once);
 * what the current round uses never does.
 */

/** No position may lie beyond a slot number that fits beside an empty mark into 16 bits. */
export const MAX_REPLICA_SLOTS = 2 ** 16 - 2;

/** Positions to slots. */
export class ReplicaStore {
  readonly #slots: number;
  /** By slot: its position + 1; 0 when it is free. */
  readonly #heldAt: Uint32Array;
  /** By slot: the round that used it last. */
  readonly #usedIn: Uint32Array;
  /** By slot: whether it was used again since the hand passed it. */
  readonly #spared: Uint8Array;
  /** By position: its slot + 1; 0 when it is not held. */
  #slotOf = new Uint16Array(0);
  #round = 0;
  #hand = 0;
  /** Positions from here on are not held. */
  #end = 0;

  /** @param slots at least twice what one round uses, at most `MAX_REPLICA_SLOTS` */
  constructor(slots: number) {
    this.#slots = slots;
    this.#heldAt = new Uint32Array(slots);
    this.#usedIn = new Uint32Array(slots);
    this.#spared = new Uint8Array(slots);
  }

  /** What is used or added from here on stays until the next round begins. */
  beginRound(): void {
    this.#round++;
  }

  /** The slot of a position, which counts as used; undefined when it is not held. */
  use(position: number): number | undefined {
    const slot = (this.#slotOf[position] ?? 0) - 1;
    if (slot < 0) return undefined;
    this.#usedIn[slot] = this.#round;
    this.#spared[slot] = 1;
    return slot;
  }

  /**
   * Gives a position that is not held a slot, and takes that from another one where none is free.
   * @throws {RangeError} when the round uses all slots
   */
  add(position: number): number {
    const slot = this.#freeSlot();
    const before = this.#heldAt[slot] ?? 0;
    if (before > 0) this.#slotOf[before - 1] = 0;
    this.#reach(position);
    this.#heldAt[slot] = position + 1;
    this.#usedIn[slot] = this.#round;
    this.#spared[slot] = 0;
    this.#slotOf[position] = slot + 1;
    this.#end = Math.max(this.#end, position + 1);
    return slot;
  }

  /** Forgets positions from here on. */
  dropFrom(position: number): void {
    if (position >= this.#end) return;
    for (const [slot, held] of this.#heldAt.entries()) {
      if (held <= position) continue;
      this.#slotOf[held - 1] = 0;
      this.#heldAt[slot] = 0;
    }
    this.#end = position;
  }

  #freeSlot(): number {
    for (let looked = 0; looked < 2 * this.#slots; looked++) {
      const slot = this.#hand;
      this.#hand = (slot + 1) % this.#slots;
      if (this.#heldAt[slot] === 0) return slot;
      if (this.#usedIn[slot] === this.#round) continue;
      if (this.#spared[slot] === 0) return slot;
      this.#spared[slot] = 0;
    }
    throw new RangeError(`Cannot add a replica: all ${this.#slots} slots are used in this round`);
  }

  #reach(position: number): void {
    if (position < this.#slotOf.length) return;
    const grown = new Uint16Array(Math.max(position + 1, 2 * this.#slotOf.length, 4096));
    grown.set(this.#slotOf);
    this.#slotOf = grown;
  }
}
