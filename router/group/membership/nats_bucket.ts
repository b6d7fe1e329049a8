/**
 * A group's bucket on a NATS server: a key for each worker, which lapses unless it is put again in time. The only importer
 * of NATS. Knows buckets and keys; what a value means is the announcement's business.
 */

import { messageOf } from "../../../kernels/errors.ts";
import { type KV, type KvEntry, Kvm } from "@nats-io/kv";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { RequestError } from "../../errors.ts";
import type { NatsPlace } from "../../host/join_source.ts";

/** How long things take. */
export interface NatsTiming {
  /** A key that was not put again for this long is gone: the server removes it by itself. */
  readonly leaseMs: number;
  /** For one answer of the server. */
  readonly answerMs: number;
}

/** What workers and routers use. */
export const NATS_TIMING: NatsTiming = { leaseMs: 6000, answerMs: 3000 };

const RECONNECT_MS = 500;
const FOR_EVER = -1;

/** Bounds what a stranger with access to the server can make a router read. */
const MAX_VALUE_BYTES = 4096;

/** What a key holds. */
export interface BucketValue {
  readonly text: string;
  /** Grows with everything that is put into the bucket. */
  readonly revision: number;
}

/** A key was put, or deleted. */
export interface BucketChange {
  readonly key: string;
  /** Undefined: it was deleted. */
  readonly value: BucketValue | undefined;
}

/** A connection to the bucket; `close` must be called. */
export class NatsBucket {
  readonly #place: NatsPlace;
  readonly #timing: NatsTiming;
  #connection: NatsConnection | undefined;
  #bucket: KV | undefined;
  #isClosed = false;
  #stopWatch: (() => void) | undefined;
  /** Rejects when the connection is lost, and is renewed with it: no caller waits for a server that is away. */
  #lost = Promise.withResolvers<never>();

  constructor(place: NatsPlace, timing: NatsTiming = NATS_TIMING) {
    this.#place = place;
    this.#timing = timing;
    this.#renew();
  }

  /**
   * Every key that is there, then every change as it happens, until the signal is aborted or the connection is lost; one watch
   * at a time. A key that lapses makes no change.
   * @throws {RequestError} `worker_lost` when the server cannot be asked
   */
  watch(signal: AbortSignal): Promise<AsyncIterable<BucketChange>> {
    return this.#with("watch workers", async (bucket) => {
      // Of its own accord it would go on after a reconnection by sequence numbers, which a server that has lost its memory
      // begins again.
      const entries = await bucket.watch();
      this.#stopWatch = () => entries.stop();
      signal.addEventListener("abort", this.#stopWatch, { once: true });
      if (signal.aborted) entries.stop();
      return changesOf(entries);
    });
  }

  /** The key as it is now; undefined when it is gone. @throws {RequestError} `worker_lost` */
  read(key: string): Promise<BucketValue | undefined> {
    return this.#with("look for worker", async (bucket) => {
      const entry = await bucket.get(key);
      return entry?.operation === "PUT" ? valueOf(entry) : undefined;
    });
  }

  /** Sets a key for the time of a lease. @throws {RequestError} `worker_lost` */
  put(key: string, value: string): Promise<void> {
    return this.#with("announce worker", async (bucket) => void await bucket.put(key, value));
  }

  /** @throws {RequestError} `worker_lost` */
  delete(key: string): Promise<void> {
    return this.#with("withdraw worker", (bucket) => bucket.delete(key));
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#connection?.close();
    this.#connection = undefined;
  }

  async #with<T>(what: string, use: (bucket: KV) => Promise<T>): Promise<T> {
    try {
      return await Promise.race([this.#open().then(use), this.#lost.promise]);
    } catch (cause) {
      // The server may have lost the bucket with its memory: it is looked for again, or made.
      this.#bucket = undefined;
      const reason = messageOf(cause);
      throw new RequestError("worker_lost", `Cannot ${what}: NATS at ${this.#place.server}: ${reason}`, { cause });
    }
  }

  async #open(): Promise<KV> {
    const { leaseMs, answerMs } = this.#timing;
    if (this.#connection === undefined) await this.#connect();
    if (this.#connection === undefined) throw new Error("the connection was closed");
    return this.#bucket ??= await new Kvm(this.#connection).create(`tidepool-${this.#place.group}`, {
      history: 1,
      ttl: leaseMs,
      maxValueSize: MAX_VALUE_BYTES,
      timeout: answerMs,
    });
  }

  async #connect(): Promise<void> {
    this.#connection = await connect({
      servers: this.#place.url,
      name: "tidepool",
      timeout: this.#timing.answerMs,
      maxReconnectAttempts: FOR_EVER,
      reconnectTimeWait: RECONNECT_MS,
    });
    if (this.#isClosed) return await this.close();
    this.#follow(this.#connection.status());
  }

  async #follow(events: ReturnType<NatsConnection["status"]>): Promise<void> {
    for await (const { type } of events) {
      if (type === "reconnect") this.#renew();
      if (type !== "disconnect") continue;
      this.#lost.reject(new Error("the connection is lost"));
      this.#stopWatch?.();
    }
  }

  #renew(): void {
    this.#lost = Promise.withResolvers();
    // Only a call that waits beside it is to fail.
    this.#lost.promise.catch(() => {});
  }
}

async function* changesOf(entries: AsyncIterable<KvEntry>): AsyncIterable<BucketChange> {
  for await (const entry of entries) {
    yield { key: entry.key, value: entry.operation === "PUT" ? valueOf(entry) : undefined };
  }
}

function valueOf(entry: KvEntry): BucketValue {
  return { text: entry.string(), revision: entry.revision };
}
