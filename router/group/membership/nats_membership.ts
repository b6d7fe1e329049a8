/**
 * Workers that have announced themselves in a group's bucket on a NATS server. The bucket is watched; while the server cannot be
 * asked, what was seen last holds. A worker whose lease is over is asked for once more before it is taken to be gone.
 */

import { RequestError } from "../../errors.ts";
import { readAnnouncement } from "./announcement.ts";
import { describeJoin, type NatsPlace } from "../../host/join_source.ts";
import { pause } from "../pause.ts";
import { LeaseTable } from "./lease_table.ts";
import type { Membership, MembershipListener, PlanMember } from "./membership.ts";
import { NATS_TIMING, NatsBucket, type NatsTiming } from "./nats_bucket.ts";

/** How a bucket is followed. */
export interface NatsOptions {
  readonly planOf: PlanMember;
  /** @default NATS_TIMING */
  readonly timing?: NatsTiming;
}

/** Between two attempts to watch. */
const AGAIN_MS = 500;
/** Workers renew their leases thrice in the time of one: a watch that reports none in two is opened again, if there are any or not. */
const QUIET_LEASES = 2;

/** See the top of this file. */
export class NatsMembership implements Membership {
  readonly isOpen = true;
  readonly origin: string;
  readonly #place: NatsPlace;
  readonly #options: NatsOptions;

  constructor(place: NatsPlace, options: NatsOptions) {
    this.#place = place;
    this.#options = options;
    this.origin = describeJoin({ kind: "nats", ...place });
  }

  async watch(listener: MembershipListener, signal: AbortSignal): Promise<void> {
    const { planOf, timing = NATS_TIMING } = this.#options;
    const watch = new BucketWatch(new NatsBucket(this.#place, timing), { listener, planOf, leaseMs: timing.leaseMs });
    // Whatever waits for the server ends with its connection.
    const close = () => watch.close();
    signal.addEventListener("abort", close, { once: true });
    try {
      while (!signal.aborted) {
        await watch.once();
        await pause(AGAIN_MS, signal);
      }
    } finally {
      signal.removeEventListener("abort", close);
      await watch.close();
    }
  }
}

interface WatchOptions {
  readonly listener: MembershipListener;
  readonly planOf: PlanMember;
  readonly leaseMs: number;
}

/** What is known of a bucket, from one watch to the next. */
class BucketWatch {
  readonly #bucket: NatsBucket;
  readonly #options: WatchOptions;
  readonly #leases: LeaseTable;
  /** Ends the watch that runs. */
  #over = new AbortController();
  #reported: string | undefined;
  #isClosed = false;

  constructor(bucket: NatsBucket, options: WatchOptions) {
    this.#bucket = bucket;
    this.#options = options;
    this.#leases = new LeaseTable({
      leaseMs: options.leaseMs,
      onChange: () => this.#report(),
      onLate: (key, revision) => this.#lookFor(key, revision),
    });
  }

  /** Watches until the server is lost, or the watch may have missed changes. */
  async once(): Promise<void> {
    const { leaseMs, listener } = this.#options;
    this.#over = new AbortController();
    let silence: ReturnType<typeof setTimeout> | undefined;
    const restartTimer = () => {
      clearTimeout(silence);
      silence = setTimeout(() => this.#over.abort(), QUIET_LEASES * leaseMs);
    };
    try {
      const changes = await this.#bucket.watch(this.#over.signal);
      listener.onTrouble(undefined);
      this.#leases.resume();
      restartTimer();
      for await (const { key, value } of changes) {
        restartTimer();
        if (value === undefined) this.#leases.delete(key);
        else this.#leases.put(key, value);
      }
    } catch (error) {
      this.#trouble(error);
    } finally {
      clearTimeout(silence);
      this.#leases.suspend();
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#over.abort();
    this.#leases.close();
    await this.#bucket.close();
  }

  /** A lease is over; if the watch has missed its renewal, another is opened. */
  async #lookFor(key: string, revision: number): Promise<void> {
    try {
      const value = await this.#bucket.read(key);
      if (value === undefined || value.revision === revision) this.#leases.delete(key, revision);
      else this.#over.abort();
    } catch (error) {
      this.#trouble(error);
      this.#over.abort();
    }
  }

  /** @throws what is no failure of the server */
  #trouble(error: unknown): void {
    if (!(error instanceof RequestError)) throw error;
    if (!this.#isClosed) this.#options.listener.onTrouble(error.message);
  }

  /** In the order of their names, which outlast addresses. */
  #report(): void {
    const found = this.#leases.values.flatMap(([name, text]) => {
      const announced = readAnnouncement(text);
      return announced === undefined ? [] : [{ name, ...announced }];
    });
    const shown = JSON.stringify(found);
    if (shown !== this.#reported) this.#options.listener.onMembers(found.map(this.#options.planOf));
    this.#reported = shown;
  }
}
