/**
 * What peers and the router have sent for the exchanges of one epoch, until the step asks for it; and what is being
 * waited for, since when. Peers may be ahead of this worker, even by a step, so messages wait, but only so many.
 * Knows tags, bounds and deadlines; knows nothing of connections or of what the messages hold.
 */

import type { ExchangePoint } from "../engine/exchange.ts";
import { PeerError, ProtocolError } from "./errors.ts";
import type { PeerMessage } from "./peer_protocol.ts";
import type { ChosenLists } from "./protocol.ts";

/** A peer by its index, or the router. */
export type Sender = number | "router";

/** Anything that an exchange waits for. */
export type MailboxMessage = PeerMessage | ({ readonly kind: "selection" } & ChosenLists);

type MessageOf<Kind> = Extract<MailboxMessage, { readonly kind: Kind }>;

/** How much may wait from one sender; one message always may. */
export interface MailboxBounds {
  readonly messages: number;
  readonly bytes: number;
}

/** A worker alone with all rows of a step runs ahead by all its layers. */
const MAILBOX_BOUNDS: MailboxBounds = { messages: 4096, bytes: 512 << 20 };

/** What a mailbox is made with. */
export interface MailboxOptions {
  readonly epoch: number;
  /** Half of the time that was left for a wait is over; empty: the router keeps the worker waiting. */
  readonly onStalled: (step: number, on: readonly number[]) => void;
  /** @default MAILBOX_BOUNDS */
  readonly bounds?: MailboxBounds;
}

interface Wait {
  readonly on: Sender;
  /** What it has not done, as errors say it. */
  readonly what: string;
  /** With the message that was waited for, if it was one. */
  readonly resolve: (message?: MailboxMessage) => void;
  readonly reject: (error: PeerError) => void;
}

/** A message to a peer, on its way. */
export interface Departure {
  /** To be called when it has left. */
  readonly onSent: () => void;
  readonly sent: Promise<void>;
}

interface RunningStep {
  readonly index: number;
  readonly deadlineMs: number;
  /** `performance.now()` at the deadline. */
  readonly endsAt: number;
  readonly timer: ReturnType<typeof setTimeout>;
}

/** What is left of a step when it is no longer worth looking whether anything stalls. */
const MIN_LEFT_MS = 10;

/** The messages of one epoch; `close` must be called. */
export class Mailbox {
  readonly #options: MailboxOptions;
  readonly #bounds: MailboxBounds;
  /** By sender, then by key. */
  readonly #messages = new Map<Sender, Map<string, MailboxMessage>>();
  readonly #waits = new Map<string, Wait>();
  #step: RunningStep | undefined;
  /** Since when anything has been waited for without a break. */
  #waitingSince = 0;
  /** That of the wait that was reported last. */
  #reported = NaN;
  #lastStep: number | undefined;
  #stallTimer: ReturnType<typeof setTimeout> | undefined;
  #closed: PeerError | undefined;

  constructor(options: MailboxOptions) {
    this.#options = options;
    this.#bounds = options.bounds ?? MAILBOX_BOUNDS;
  }

  /** From now on messages of this step may be waited for; those of earlier ones are forgotten. */
  begin(step: number, deadlineMs: number): void {
    this.end();
    this.#lastStep = step;
    for (const messages of this.#messages.values()) {
      for (const [key, message] of messages) if (message.step < step) messages.delete(key);
    }
    const timer = setTimeout(() => this.#late(running), deadlineMs);
    const running = { index: step, deadlineMs, endsAt: performance.now() + deadlineMs, timer };
    this.#step = running;
    this.#watch(running, performance.now());
  }

  /** The step is over; nothing has a deadline any more. */
  end(): void {
    clearTimeout(this.#step?.timer);
    clearTimeout(this.#stallTimer);
    this.#step = undefined;
  }

  /**
   * Takes in a message, and hands it on if something waits for it. One of an earlier step is dropped: a refused step may leave it.
   * @throws {ProtocolError} when it is of another epoch, came twice, or too much waits from this sender already
   */
  put(from: Sender, message: MailboxMessage): void {
    if (message.epoch !== this.#options.epoch) {
      throw new ProtocolError(`Cannot take ${message.kind} of epoch ${message.epoch}: this is ${this.#options.epoch}`);
    }
    if (this.#lastStep !== undefined && message.step < this.#lastStep) return;
    const key = keyOf(message.kind, message);
    const wait = this.#waits.get(`${from} ${key}`);
    if (wait === undefined) return this.#keep(from, key, message);
    this.#waits.delete(`${from} ${key}`);
    wait.resolve(message);
  }

  /**
   * The message of that kind from that sender, as soon as it is there; asked for once.
   * @throws {PeerError} `peer_late` at the step's deadline, or the reason why the mailbox was closed
   */
  take<const Kind extends MailboxMessage["kind"]>(
    from: Sender,
    kind: Kind,
    point: ExchangePoint,
  ): Promise<MessageOf<Kind>> {
    const key = keyOf(kind, point);
    return new Promise((resolve, reject) => {
      if (this.#closed !== undefined) throw this.#closed;
      const messages = this.#messages.get(from);
      const present = messages?.get(key);
      messages?.delete(key);
      if (present !== undefined && this.#step?.index === point.step) return resolve(present as MessageOf<Kind>);
      const what = `sent the ${kind} of layer ${point.layer}`;
      const wait = { on: from, what, resolve: resolve as Wait["resolve"], reject };
      this.#wait(`${from} ${key}`, point, wait);
    });
  }

  /**
   * A message that is about to be sent to a peer, and is waited for until it has left, as one that is to come.
   * @throws {PeerError} from `sent`, as `take`
   */
  departure(to: number, kind: PeerMessage["kind"], point: ExchangePoint): Departure {
    const key = `${to} takes ${keyOf(kind, point)}`;
    const { promise: sent, resolve, reject } = Promise.withResolvers<void>();
    const what = `taken the ${kind} of layer ${point.layer}`;
    if (this.#closed === undefined) this.#wait(key, point, { on: to, what, resolve: () => resolve(), reject });
    else reject(this.#closed);
    const onSent = () => {
      this.#waits.get(key)?.resolve();
      this.#waits.delete(key);
    };
    return { onSent, sent };
  }

  #wait(key: string, { step }: ExchangePoint, wait: Wait): void {
    const running = this.#step;
    if (running?.index !== step) throw new Error(`Cannot wait: step ${step} does not run`);
    // The step's timer may have gone off while nothing waited: it will not do so again.
    const now = performance.now();
    if (now >= running.endsAt) return wait.reject(lateness(running, wait));
    if (this.#waits.size === 0) this.#waitingSince = now;
    this.#waits.set(key, wait);
  }

  /** All that wait, now or later, get this reason; the first one counts. */
  close(reason: PeerError): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.end();
    this.#messages.clear();
    const waits = [...this.#waits.values()];
    this.#waits.clear();
    for (const wait of waits) wait.reject(reason);
  }

  #keep(from: Sender, key: string, message: MailboxMessage): void {
    if (this.#closed !== undefined) return;
    const messages = this.#messages.get(from) ?? new Map<string, MailboxMessage>();
    this.#messages.set(from, messages);
    if (messages.has(key)) throw new ProtocolError(`Cannot take ${message.kind}: it came twice for ${key}`);
    const bytes = messages.values().reduce((sum, waiting) => sum + bytesOf(waiting), bytesOf(message));
    if (messages.size > 0 && (messages.size >= this.#bounds.messages || bytes > this.#bounds.bytes)) {
      throw new ProtocolError(`Cannot take ${message.kind}: ${messages.size} messages of ${bytes} bytes wait already`);
    }
    messages.set(key, message);
  }

  /**
   * Looks for a stall at half of the time that was left at `since`. One timer serves all waits of a step, which are many and short:
   * none of them can be due before it goes off.
   */
  #watch(step: RunningStep, since: number): void {
    const dueAt = (since + step.endsAt) / 2;
    this.#stallTimer = setTimeout(() => this.#look(step), Math.max(0, dueAt - performance.now()));
  }

  #look(step: RunningStep): void {
    const now = performance.now();
    const isWaiting = this.#waits.size > 0 && this.#waitingSince !== this.#reported;
    const isDue = isWaiting && now >= (this.#waitingSince + step.endsAt) / 2;
    if (isDue) {
      this.#reported = this.#waitingSince;
      const on = this.#waits.values().flatMap(({ on }) => on === "router" ? [] : [on]);
      this.#options.onStalled(step.index, [...new Set(on)]);
    }
    if (step.endsAt - now > MIN_LEFT_MS) this.#watch(step, isWaiting && !isDue ? this.#waitingSince : now);
  }

  #late(step: RunningStep): void {
    const waits = [...this.#waits.values()];
    this.#waits.clear();
    clearTimeout(this.#stallTimer);
    for (const wait of waits) wait.reject(lateness(step, wait));
  }
}

function lateness({ index, deadlineMs }: RunningStep, { on, what }: Wait): PeerError {
  const who = on === "router" ? "the router" : `worker ${on}`;
  const message = `Cannot finish step ${index}: ${who} has not ${what} within ${deadlineMs} ms`;
  return new PeerError("peer_late", message, on === "router" ? {} : { peer: on });
}

function keyOf(kind: MailboxMessage["kind"], { step, batch, layer }: ExchangePoint): string {
  return `${kind} ${step}/${batch}/${layer}`;
}

function bytesOf(message: MailboxMessage): number {
  switch (message.kind) {
    case "queries":
    case "keys":
    case "rows":
    case "replicas":
      return message.rows.reduce((sum, { byteLength }) => sum + byteLength, 0);
    case "states":
      return [...message.o, ...message.lse].reduce((sum, { byteLength }) => sum + byteLength, 0);
    case "selection":
      return message.positions.byteLength;
  }
}
