/**
 * Workers that have announced themselves in a group's bucket on a NATS server. A lease that lapses makes no event, so the
 * whole bucket is read every second; while the server cannot be asked, what was read last stands.
 */

import { RequestError } from "../../errors.ts";
import { readAnnouncement } from "./announcement.ts";
import { describeJoin, type NatsPlace } from "../../host/join_source.ts";
import type { Membership, MembershipListener, PlanMember } from "./membership.ts";
import { NatsBucket, type NatsTiming } from "./nats_bucket.ts";
import { type MemberReading, pollMembers } from "./poll_members.ts";

/** How a bucket is followed. */
export interface NatsOptions {
  readonly planOf: PlanMember;
  /** Between two readings. @default 1000 */
  readonly everyMs?: number;
  /** @default NATS_TIMING */
  readonly timing?: NatsTiming;
}

const EVERY_MS = 1000;

/** @see the file's paragraph */
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
    const bucket = new NatsBucket(this.#place, this.#options.timing);
    // Whatever waits for the server ends with its connection.
    const close = () => bucket.close();
    signal.addEventListener("abort", close, { once: true });
    const { planOf, everyMs = EVERY_MS } = this.#options;
    try {
      await pollMembers({ read: () => read(bucket), planOf, everyMs, listener, signal });
    } finally {
      signal.removeEventListener("abort", close);
      await bucket.close();
    }
  }
}

/** In the order of their names, which outlast addresses. */
async function read(bucket: NatsBucket): Promise<MemberReading> {
  try {
    const entries = [...await bucket.list()].sort(([a], [b]) => a < b ? -1 : 1);
    const found = entries.flatMap(([name, text]) => {
      const announced = readAnnouncement(text);
      return announced === undefined ? [] : [{ name, ...announced }];
    });
    return { found, trouble: undefined };
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    return { trouble: error.message };
  }
}
