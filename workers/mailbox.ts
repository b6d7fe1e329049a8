/**
 * What peers and the router have sent for the exchanges of one epoch, until a step asks for it. Peers may be ahead of this
 * worker, even by a step, so messages wait, but only so many; and a step may begin before the one before it is over. Knows
 * tags and bounds; knows nothing of connections or of what the messages hold.
 */

import type { ExchangePoint } from "../engine/exchange.ts";
import { PeerError, ProtocolError } from "./errors.ts";
import type { PeerMessage } from "./peer_protocol.ts";
import type { ChosenLists } from "./protocol.ts";
import { type Sender, StepWaits, type StepWaitsOptions } from "./step_waits.ts";

export type { Sender };

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
export interface MailboxOptions extends Pick<StepWaitsOptions, "onStalled"> {
  readonly epoch: number;
  /** @default MAILBOX_BOUNDS */
  readonly bounds?: MailboxBounds;
}

/** A message to a peer, on its way. */
export interface Departure {
  /** To be called when it has left. */
  readonly onSent: () => void;
  readonly sent: Promise<void>;
}

/** A message that was waited for; undefined: what was waited for is no message. */
type Answer = MailboxMessage | undefined;

/** The messages of one epoch; `close` must be called. */
export class Mailbox {
  readonly #options: MailboxOptions;
  readonly #bounds: MailboxBounds;
  /** By sender, then by key. */
  readonly #messages = new Map<Sender, Map<string, MailboxMessage>>();
  /** Those that run, by index. */
  readonly #steps = new Map<number, StepWaits<Answer>>();
  /** The earliest step that still runs, or will. */
  #earliest = -Infinity;
  #closed: PeerError | undefined;

  constructor(options: MailboxOptions) {
    this.#options = options;
    this.#bounds = options.bounds ?? MAILBOX_BOUNDS;
  }

  /** From now on messages of this step may be waited for; those of steps before all that run are forgotten. */
  begin(step: number, deadlineMs: number): void {
    this.end(step);
    const { onStalled } = this.#options;
    this.#steps.set(step, new StepWaits({ index: step, deadlineMs, onStalled }));
    this.#earliest = Math.min(...this.#steps.keys());
    for (const messages of this.#messages.values()) {
      for (const [key, message] of messages) if (message.step < this.#earliest) messages.delete(key);
    }
  }

  /** The step is over; nothing of it has a deadline any more. Harmless when it does not run. */
  end(step: number): void {
    const reason = new PeerError("epoch_over", `Cannot wait: step ${step} is over`);
    this.#steps.get(step)?.end(reason);
    this.#steps.delete(step);
    this.#earliest = Math.max(this.#earliest, Math.min(...this.#steps.keys(), step + 1));
  }

  /**
   * Takes in a message, and hands it on if something waits for it. One of an earlier step is dropped: a refused step may leave it.
   * @throws {ProtocolError} when it is of another epoch, came twice, or too much waits from this sender already
   */
  put(from: Sender, message: MailboxMessage): void {
    if (message.epoch !== this.#options.epoch) {
      throw new ProtocolError(`Cannot take ${message.kind} of epoch ${message.epoch}: this is ${this.#options.epoch}`);
    }
    if (message.step < this.#earliest) return;
    const key = keyOf(message.kind, message);
    const wait = this.#steps.get(message.step)?.take(`${from} ${key}`);
    if (wait === undefined) this.#keep(from, key, message);
    else wait.resolve(message);
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
      const step = this.#running(point);
      const messages = this.#messages.get(from);
      const present = messages?.get(key);
      messages?.delete(key);
      if (present !== undefined) return resolve(present as MessageOf<Kind>);
      const what = `sent the ${kind} of layer ${point.layer}`;
      step.add(`${from} ${key}`, { on: from, what, resolve: resolve as (message: Answer) => void, reject });
    });
  }

  /**
   * A message that is about to be sent to a peer, and is waited for until it has left, as one that is to come.
   * @throws {PeerError} from `sent`, as `take`
   */
  departure(to: number, kind: PeerMessage["kind"], point: ExchangePoint): Departure {
    const key = `${to} takes ${keyOf(kind, point)}`;
    const sent = new Promise<void>((resolve, reject) => {
      const what = `taken the ${kind} of layer ${point.layer}`;
      this.#running(point).add(key, { on: to, what, resolve: () => resolve(), reject });
    });
    // Where the message cannot be sent, that is the failure, and no one waits for this one.
    sent.catch(() => {});
    return { sent, onSent: () => this.#steps.get(point.step)?.take(key)?.resolve(undefined) };
  }

  /** All that wait, now or later, get this reason; the first one counts. */
  close(reason: PeerError): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#messages.clear();
    for (const step of this.#steps.values()) step.end(reason);
    this.#steps.clear();
  }

  #running({ step }: ExchangePoint): StepWaits<Answer> {
    if (this.#closed !== undefined) throw this.#closed;
    const running = this.#steps.get(step);
    if (running === undefined) throw new Error(`Cannot wait: step ${step} does not run`);
    return running;
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
    case "tokens":
      return message.tokens.byteLength;
  }
}
