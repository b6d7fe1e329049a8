/**
 * The replicas of one sequence: the newest rows in a ring, which every worker fills itself as it decodes them, and for each
 * select layer and KV head a store of what was chosen before. Knows positions and local rows; knows nothing of other sequences.
 */

import type { ModelConfig } from "../model/model_config.ts";
import type { ReplicaRoom } from "../replica_plan.ts";
import type { SetShape } from "../span.ts";
import { ReplicaStore } from "./replica_store.ts";

/** What one sequence's replicas are made with. */
export interface SequenceReplicasOptions {
  readonly room: ReplicaRoom;
  /** Physical pages, on this worker. */
  readonly pages: readonly number[];
  /** The local row that the first of them holds first. */
  readonly firstRow: number;
  readonly config: Pick<ModelConfig, "heads" | "kvHeads">;
  readonly shape: SetShape;
}

/** A row that the stores lacked, and where it belongs from now on. */
export interface MissingRow {
  readonly position: number;
  /** Undefined: every KV head. */
  readonly kvHead: number | undefined;
  readonly localRow: number;
}

/** Where the positions of a selection lie, and which must be copied there first. */
export interface FoundRows {
  /** Local rows of each set, in the order of its positions. */
  readonly rows: readonly Uint32Array[];
  readonly missing: readonly MissingRow[];
}

/** See the top of this file. */
export class SequenceReplicas {
  readonly #options: SequenceReplicasOptions;
  /** By place in the ring: the position that lies there + 1; 0 for none. */
  readonly #ring: Uint32Array;
  /** By select layer: a store for each KV head, or one for all of them. */
  readonly #stores = new Map<number, readonly ReplicaStore[]>();
  #digest = 0;

  constructor(options: SequenceReplicasOptions) {
    this.#options = options;
    this.#ring = new Uint32Array(options.room.ring);
  }

  get pages(): readonly number[] {
    return this.#options.pages;
  }

  /** Of everything that has changed what is held, u32: workers whose accounts differ differ in this. */
  get digest(): number {
    return this.#digest;
  }

  /** Takes a row that all workers are about to compute. @returns the local row that those write who do not own it */
  append(position: number): number {
    const place = position % this.#ring.length;
    this.#ring[place] = position + 1;
    this.#note(position);
    return this.#options.firstRow + place;
  }

  /** Forgets positions from here on. */
  dropFrom(position: number): void {
    for (const [place, held] of this.#ring.entries()) if (held > position) this.#ring[place] = 0;
    for (const store of [...this.#stores.values()].flat()) store.dropFrom(position);
    this.#note(~position);
  }

  /**
   * Finds what a select layer has chosen for a row, and makes room for what is missing.
   * @param sets positions of each set
   */
  find(selectLayer: number, sets: readonly Uint32Array[]): FoundRows {
    const { firstRow, shape } = this.#options;
    const stores = this.#storesOf(selectLayer);
    const setsPerStore = sets.length / stores.length;
    const rows = sets.map(({ length }) => new Uint32Array(length));
    const missing: MissingRow[] = [];
    for (const [index, store] of stores.entries()) {
      store.beginRound();
      const kvHead = shape === "all_heads" ? undefined : index;
      const own = {
        sets: sets.slice(index * setsPerStore, (index + 1) * setsPerStore),
        firstSet: index * setsPerStore,
      };
      // What is held is marked first, so that nothing which this round reads gives way.
      const absent = this.#look(store, own, rows);
      for (const { set, at, position } of absent) {
        const present = store.use(position);
        const localRow = firstRow + this.#ring.length + (present ?? store.add(position));
        if (present === undefined) {
          missing.push({ position, kvHead, localRow });
          this.#note(position);
          this.#note(localRow);
        }
        const list = rows[set];
        if (list !== undefined) list[at] = localRow;
      }
    }
    return { rows, missing };
  }

  /** Fills in what the ring and a store hold. @returns the rest */
  #look(
    store: ReplicaStore,
    { sets, firstSet }: { readonly sets: readonly Uint32Array[]; readonly firstSet: number },
    rows: readonly Uint32Array[],
  ): { readonly set: number; readonly at: number; readonly position: number }[] {
    const absent: { readonly set: number; readonly at: number; readonly position: number }[] = [];
    const { firstRow, room: { ring } } = this.#options;
    for (const [i, positions] of sets.entries()) {
      const list = rows[firstSet + i];
      if (list === undefined) continue;
      for (let at = 0; at < positions.length; at++) {
        const position = positions[at] ?? 0;
        if (this.#ring[position % ring] === position + 1) list[at] = firstRow + position % ring;
        else {
          const slot = store.use(position);
          if (slot === undefined) absent.push({ set: firstSet + i, at, position });
          else list[at] = firstRow + ring + slot;
        }
      }
    }
    return absent;
  }

  /** One round of FNV-1a, on 32 bits at once. */
  #note(word: number): void {
    this.#digest = Math.imul(this.#digest ^ word, 0x01000193) >>> 0;
  }

  #storesOf(selectLayer: number): readonly ReplicaStore[] {
    const present = this.#stores.get(selectLayer);
    if (present !== undefined) return present;
    const { room: { store }, shape, config } = this.#options;
    const made = Array.from({ length: shape === "all_heads" ? 1 : config.kvHeads }, () => new ReplicaStore(store));
    this.#stores.set(selectLayer, made);
    return made;
  }
}
