/**
 * Who may be in a handshake at the same time. Silent strangers must not keep the router or a peer out: a newcomer
 * takes the place of the handshake that has lasted longest, first of its own address, and addresses that once proved to
 * hold the secret have places of their own.
 */

import { HandshakeError } from "./errors.ts";

/** Handshakes at the same time, of strangers and again of known addresses. */
const MAX_PENDING = 16;

/** Of one address. */
const MAX_PER_ADDRESS = 8;

/** One whose place is taken may still end within this time from its beginning: its bytes may have come and not been read. */
const GRACE_MS = 250;

/** With those in their grace; the next one is refused. */
const MAX_WITH_GRACE = 64;

/** Addresses remembered; a group has fewer workers. */
const MAX_KNOWN = 128;

/** A handshake; `end` must be called. */
export interface PendingHandshake {
  readonly address: string;
  /** Aborted with a `HandshakeError` when another one needs its place. */
  readonly signal: AbortSignal;
}

interface Place extends PendingHandshake {
  readonly abort: AbortController;
  readonly startedMs: number;
  /** Set when its place has been given to another. */
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** All handshakes of one listener. */
export class PendingHandshakes {
  /** In the order in which they began. */
  readonly #places = new Set<Place>();
  /** In the order in which they were last seen. */
  readonly #known = new Set<string>();

  get size(): number {
    return this.#places.size;
  }

  /**
   * Gives a place to a newcomer, another's if need be.
   * @throws {HandshakeError} `handshake_failed` when too many came within a moment
   */
  begin(address: string): PendingHandshake {
    const isKnown = this.#known.has(address);
    const pool = [...this.#places].filter((place) => this.#known.has(place.address) === isKnown);
    if (pool.length >= MAX_WITH_GRACE) {
      throw new HandshakeError(
        "handshake_failed",
        `Cannot shake hands: ${pool.length} others are in a handshake, at most ${MAX_WITH_GRACE} may`,
      );
    }
    const settled = pool.filter(({ timer }) => timer === undefined);
    const own = settled.filter((place) => place.address === address);
    if (own.length >= MAX_PER_ADDRESS) displace(own[0]);
    else if (settled.length >= MAX_PENDING) displace(largestShare(settled)[0]);
    const abort = new AbortController();
    const place = { address, abort, signal: abort.signal, startedMs: performance.now(), timer: undefined };
    this.#places.add(place);
    return place;
  }

  /** It is over, however it ended. */
  end(pending: PendingHandshake): void {
    for (const place of this.#places) {
      if (place !== pending) continue;
      clearTimeout(place.timer);
      this.#places.delete(place);
    }
  }

  /** A peer at this address holds the secret. */
  recognize(address: string): void {
    this.#known.delete(address);
    this.#known.add(address);
    const [oldest] = this.#known;
    if (this.#known.size > MAX_KNOWN && oldest !== undefined) this.#known.delete(oldest);
  }
}

function displace(place: Place | undefined): void {
  if (place === undefined) return;
  const error = new HandshakeError("handshake_failed", "Cannot shake hands: others need the place of a silent peer");
  const leftMs = Math.max(0, place.startedMs + GRACE_MS - performance.now());
  place.timer = setTimeout(() => place.abort.abort(error), leftMs);
}

/** The handshakes of the address that has most, in their order. */
function largestShare(places: readonly Place[]): readonly Place[] {
  const byAddress = Map.groupBy(places, ({ address }) => address);
  return [...byAddress.values()].reduce((most, own) => own.length > most.length ? own : most, []);
}
