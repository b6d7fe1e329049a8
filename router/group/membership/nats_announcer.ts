/**
 * A worker's lease: announces where it listens in its group's bucket on a NATS server, renews that until it is closed, and
 * says what the worker has loaded. Knows the announcement and time; knows nothing of what the worker does.
 */

import { RequestError } from "../../errors.ts";
import { pause } from "../pause.ts";
import type { Announcement } from "./announcement.ts";
import type { NatsPlace } from "../../host/join_source.ts";
import { NATS_TIMING, NatsBucket, type NatsTiming } from "./nats_bucket.ts";

/** What is announced, and where. */
export interface AnnouncerOptions {
  readonly place: NatsPlace;
  /** Identifies the worker within its group. */
  readonly name: string;
  readonly announcement: Announcement;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
  /** @default NATS_TIMING */
  readonly timing?: NatsTiming;
}

/** Of a lease. */
const RENEW_SHARE = 1 / 3;
/** After an attempt that failed. */
const AGAIN_MS = 500;
const WITHDRAW_MS = 1000;

/** Announces from its making on; `close` must be called. */
export class NatsAnnouncer {
  readonly #options: AnnouncerOptions;
  readonly #bucket: NatsBucket;
  readonly #closing = new AbortController();
  readonly #renewing: Promise<void>;
  #announcement: Announcement;
  /** Aborted when there is something new to say. */
  #news = new AbortController();

  constructor(options: AnnouncerOptions) {
    this.#options = options;
    this.#announcement = options.announcement;
    this.#bucket = new NatsBucket(options.place, options.timing);
    this.#renewing = this.#renew();
  }

  /** The worker has loaded a model. */
  loaded(loaded: NonNullable<Announcement["loaded"]>): void {
    this.#announcement = { ...this.#announcement, loaded };
    this.#news.abort();
  }

  /** Withdraws the announcement; if the server cannot be reached in time it lapses. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    const late = setTimeout(() => this.#bucket.close(), WITHDRAW_MS);
    await this.#renewing;
    try {
      await this.#bucket.delete(this.#options.name);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      this.#options.log(error.message);
    }
    clearTimeout(late);
    await this.#bucket.close();
  }

  async #renew(): Promise<void> {
    const { name, log, timing = NATS_TIMING } = this.#options;
    let trouble: string | undefined;
    while (!this.#closing.signal.aborted) {
      this.#news = new AbortController();
      try {
        await this.#bucket.put(name, JSON.stringify(this.#announcement));
        if (trouble !== undefined) log("The worker is announced again");
        trouble = undefined;
      } catch (error) {
        if (!(error instanceof RequestError)) throw error;
        if (trouble === undefined && !this.#closing.signal.aborted) log(error.message);
        trouble = error.message;
      }
      const waitMs = trouble === undefined ? RENEW_SHARE * timing.leaseMs : AGAIN_MS;
      await pause(waitMs, AbortSignal.any([this.#closing.signal, this.#news.signal]));
    }
  }
}
