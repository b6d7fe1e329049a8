/**
 * What peers and the router have sent for the exchanges of one epoch, until the step asks for it; and who waits for what,
 * since when. Peers may be ahead of this worker, even by a step, so letters wait, but only so many.
 * Knows tags, bounds and deadlines; knows nothing of connections or of what the letters hold.
 */

import type { ExchangePoint } from "../engine/exchange.ts";
import { PeerError, ProtocolError } from "./errors.ts";
import type { PeerMessage } from "./peer_protocol.ts";
import type { ChosenLists } from "./protocol.ts";

/** A peer by its index, or the router. */
export type Sender = number | "router";

/** Anything that an exchange waits for. */
export type Letter = PeerMessage | ({ readonly kind: "selection" } & ChosenLists);

type LetterOf<Kind> = Extract<Letter, { readonly kind: Kind }>;

/** How much may wait from one sender; one letter always may. */
export interface MailboxBounds {
  readonly letters: number;
  readonly bytes: number;
}

/** A worker alone with all rows of a step runs ahead by all its layers. */
const MAILBOX_BOUNDS: MailboxBounds = { letters: 4096, bytes: 512 << 20 };

/** What a mailbox is made with. */
export interface MailboxOptions {
  readonly epoch: number;
  /** Half of the time that was left for a wait is over; empty: the router keeps the worker waiting. */
  readonly onStalled: (step: number, on: readonly number[]) => void;
  /** @default MAILBOX_BOUNDS */
  readonly bounds?: MailboxBounds;
}

interface Wait {
  readonly from: Sender;
  readonly what: string;
  readonly resolve: (letter: Letter) => void;
  readonly reject: (error: PeerError) => void;
}

interface RunningStep {
  readonly index: number;
  readonly deadlineMs: number;
  /** `performance.now()` at the deadline. */
  readonly endsAt: number;
  readonly timer: ReturnType<typeof setTimeout>;
}

/** The letters of one epoch; `close` must be called. */
export class Mailbox {
  readonly #options: MailboxOptions;
  readonly #bounds: MailboxBounds;
  /** By sender, then by key. */
  readonly #letters = new Map<Sender, Map<string, Letter>>();
  readonly #waits = new Map<string, Wait>();
  #step: RunningStep | undefined;
  #lastStep: number | undefined;
  #stallTimer: ReturnType<typeof setTimeout> | undefined;
  #closed: PeerError | undefined;

  constructor(options: MailboxOptions) {
    this.#options = options;
    this.#bounds = options.bounds ?? MAILBOX_BOUNDS;
  }

  /** From now on letters of this step may be waited for; those of earlier ones are forgotten. */
  begin(step: number, deadlineMs: number): void {
    this.end();
    this.#lastStep = step;
    for (const letters of this.#letters.values()) {
      for (const [key, letter] of letters) if (letter.step < step) letters.delete(key);
    }
    const timer = setTimeout(() => this.#late(running), deadlineMs);
    const running = { index: step, deadlineMs, endsAt: performance.now() + deadlineMs, timer };
    this.#step = running;
  }

  /** The step is over; nothing has a deadline any more. */
  end(): void {
    clearTimeout(this.#step?.timer);
    clearTimeout(this.#stallTimer);
    this.#step = undefined;
  }

  /**
   * Takes in a letter, and hands it on if something waits for it. One of an earlier step is dropped: a refused step may leave it.
   * @throws {ProtocolError} when it is of another epoch, came twice, or too much waits from this sender already
   */
  put(from: Sender, letter: Letter): void {
    if (letter.epoch !== this.#options.epoch) {
      throw new ProtocolError(`Cannot take ${letter.kind} of epoch ${letter.epoch}: this is ${this.#options.epoch}`);
    }
    if (this.#lastStep !== undefined && letter.step < this.#lastStep) return;
    const key = keyOf(letter.kind, letter);
    const wait = this.#waits.get(`${from} ${key}`);
    if (wait === undefined) return this.#keep(from, key, letter);
    this.#forget(`${from} ${key}`);
    wait.resolve(letter);
  }

  /**
   * The letter of that kind from that sender, as soon as it is there; asked for once.
   * @throws {PeerError} `peer_late` at the step's deadline, or the reason why the mailbox was closed
   */
  take<const Kind extends Letter["kind"]>(from: Sender, kind: Kind, point: ExchangePoint): Promise<LetterOf<Kind>> {
    const key = keyOf(kind, point);
    return new Promise((resolve, reject) => {
      if (this.#closed !== undefined) throw this.#closed;
      if (this.#step?.index !== point.step) throw new Error(`Cannot wait for ${kind}: step ${point.step} does not run`);
      const letters = this.#letters.get(from);
      const present = letters?.get(key);
      letters?.delete(key);
      if (present !== undefined) return resolve(present as LetterOf<Kind>);
      const what = `${kind} of layer ${point.layer}`;
      // The step's timer may have gone off while nothing waited: it will not do so again.
      if (performance.now() >= this.#step.endsAt) return reject(lateness(this.#step, from, what));
      if (this.#waits.size === 0) this.#watch(this.#step);
      this.#waits.set(`${from} ${key}`, { from, what, resolve: resolve as (letter: Letter) => void, reject });
    });
  }

  /** All that wait, now or later, get this reason; the first one counts. */
  close(reason: PeerError): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.end();
    this.#letters.clear();
    const waits = [...this.#waits.values()];
    this.#waits.clear();
    for (const wait of waits) wait.reject(reason);
  }

  #keep(from: Sender, key: string, letter: Letter): void {
    if (this.#closed !== undefined) return;
    const letters = this.#letters.get(from) ?? new Map<string, Letter>();
    this.#letters.set(from, letters);
    if (letters.has(key)) throw new ProtocolError(`Cannot take ${letter.kind}: it came twice for ${key}`);
    const bytes = letters.values().reduce((sum, waiting) => sum + bytesOf(waiting), bytesOf(letter));
    if (letters.size > 0 && (letters.size >= this.#bounds.letters || bytes > this.#bounds.bytes)) {
      throw new ProtocolError(`Cannot take ${letter.kind}: ${letters.size} letters of ${bytes} bytes wait already`);
    }
    letters.set(key, letter);
  }

  #forget(wait: string): void {
    this.#waits.delete(wait);
    if (this.#waits.size === 0) clearTimeout(this.#stallTimer);
  }

  #watch({ index, endsAt }: RunningStep): void {
    this.#stallTimer = setTimeout(() => {
      const on = this.#waits.values().flatMap(({ from }) => from === "router" ? [] : [from]);
      this.#options.onStalled(index, [...new Set(on)]);
    }, Math.max(0, endsAt - performance.now()) / 2);
  }

  #late(step: RunningStep): void {
    const waits = [...this.#waits.values()];
    this.#waits.clear();
    clearTimeout(this.#stallTimer);
    for (const { from, what, reject } of waits) reject(lateness(step, from, what));
  }
}

function lateness({ index, deadlineMs }: RunningStep, from: Sender, what: string): PeerError {
  const who = from === "router" ? "the router" : `worker ${from}`;
  const message = `Cannot finish step ${index}: ${who} has not sent the ${what} within ${deadlineMs} ms`;
  return new PeerError("peer_late", message, from === "router" ? {} : { peer: from });
}

function keyOf(kind: Letter["kind"], { step, batch, layer }: ExchangePoint): string {
  return `${kind} ${step}/${batch}/${layer}`;
}

function bytesOf(letter: Letter): number {
  switch (letter.kind) {
    case "queries":
    case "rows":
      return letter.rows.reduce((sum, { byteLength }) => sum + byteLength, 0);
    case "states":
      return [...letter.o, ...letter.lse].reduce((sum, { byteLength }) => sum + byteLength, 0);
    case "selection":
      return letter.positions.byteLength;
  }
}
