/**
 * Keys that lapse unless they are put again in time. The server that holds them removes such a key without an event, so time is
 * kept here as well, from the moment at which each was put.
 */

import type { BucketValue } from "./nats_bucket.ts";

/** What the table reports. */
export interface LeaseListener {
  /** How long a key lasts that is not put again. */
  readonly leaseMs: number;
  /** Something is different from what it was when this was last called. */
  readonly onChange: () => void;
  /** A key was not put again in time; it stays until it is deleted. */
  readonly onLate: (key: string, revision: number) => void;
}

interface Lease extends BucketValue {
  readonly timer: ReturnType<typeof setTimeout> | undefined;
}

/** More are not kept: it bounds what a stranger with access to the server can make a router hold. */
const MAX_KEYS = 256;
/** A burst of changes, such as all keys when a watch begins, is one change. */
const SETTLE_MS = 20;

/** See the top of this file; `close` must be called */
export class LeaseTable {
  readonly #listener: LeaseListener;
  readonly #leases = new Map<string, Lease>();
  #settling: ReturnType<typeof setTimeout> | undefined;

  constructor(listener: LeaseListener) {
    this.#listener = listener;
  }

  /** By key, in the order of the keys. */
  get values(): readonly (readonly [key: string, text: string])[] {
    return [...this.#leases].sort(([a], [b]) => a < b ? -1 : 1).map(([key, { text }]) => [key, text]);
  }

  /** A key was put: its time begins again. */
  put(key: string, value: BucketValue): void {
    const before = this.#leases.get(key);
    if (before === undefined && this.#leases.size >= MAX_KEYS) return;
    this.#begin(key, value);
    if (before?.text !== value.text) this.#changed();
  }

  /** A key was deleted. @param revision only if it was not put since then */
  delete(key: string, revision?: number): void {
    const lease = this.#leases.get(key);
    if (lease === undefined || (revision !== undefined && lease.revision !== revision)) return;
    clearTimeout(lease.timer);
    this.#leases.delete(key);
    this.#changed();
  }

  /** The server can be asked: the time of each key begins again, as none could be put while it was away. */
  resume(): void {
    for (const [key, value] of this.#leases) this.#begin(key, value);
    // Also when there is none: that is news as well.
    this.#changed();
  }

  /** The server cannot be asked: no key lapses. */
  suspend(): void {
    for (const [key, lease] of this.#leases) {
      clearTimeout(lease.timer);
      this.#leases.set(key, { ...lease, timer: undefined });
    }
  }

  close(): void {
    this.suspend();
    clearTimeout(this.#settling);
  }

  #begin(key: string, { text, revision }: BucketValue): void {
    clearTimeout(this.#leases.get(key)?.timer);
    const timer = setTimeout(() => this.#listener.onLate(key, revision), this.#listener.leaseMs);
    this.#leases.set(key, { text, revision, timer });
  }

  #changed(): void {
    this.#settling ??= setTimeout(() => {
      this.#settling = undefined;
      this.#listener.onChange();
    }, SETTLE_MS);
  }
}
