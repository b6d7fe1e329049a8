/**
 * A worker's place among the workers of its group: taken when the router forms the group, lost when a peer is, left when
 * the router forms it again. Knows epochs, links and reports; knows nothing of what a step computes.
 */

import { ALONE } from "../engine/exchange.ts";
import { MAX_TILED_ROWS } from "../engine/pass/batch_plan.ts";
import { PageMap } from "../engine/page_map.ts";
import type { ExchangeTiming } from "../engine/span.ts";
import { CodedError } from "../kernels/errors.ts";
import type { Acceptor } from "./acceptor.ts";
import type { HostedEngine } from "./engine_host.ts";
import { PeerError, ProtocolError } from "./errors.ts";
import type { ExchangeMemory } from "./exchange_memory.ts";
import { Mailbox } from "./mailbox.ts";
import { PeerExchange } from "./peer_exchange.ts";
import type { Lane } from "./lane.ts";
import { LANE_CHUNK_BYTES } from "./lane_messages.ts";
import { openLanes } from "./open_lanes.ts";
import { meetPeers, PeerLinks } from "./peer_links.ts";
import type { ChosenLists, Form, WorkerMessage } from "./protocol.ts";
import type { TlsIdentity, TlsTrust, WorkerConn } from "./transport.ts";

/** What a membership needs besides an engine. */
export interface MembershipOptions {
  readonly acceptor: Pick<Acceptor, "peer" | "address">;
  /** Of the whole group. */
  readonly secret: string | undefined;
  /** What the certificates of its workers are checked against; undefined: clear text. */
  readonly trust?: TlsTrust | undefined;
  /** What this worker shows to peers that dial it; undefined: clear text. */
  readonly identity?: TlsIdentity | undefined;
  /** Sends to the router; never throws. */
  readonly tell: (message: WorkerMessage) => void;
  /** Lines for the operator. */
  readonly log: (line: string) => void;
}

/** What lasts for one epoch. */
interface Place {
  readonly mailbox: Mailbox;
  readonly exchange: PeerExchange;
  readonly links: PeerLinks;
  readonly memory: ExchangeMemory;
}

/** Connections of an epoch by peer. */
interface Meeting {
  readonly conns: ReadonlyMap<number, WorkerConn>;
  readonly lanes: ReadonlyMap<number, Lane>;
}

/** See the top of this file; `close` must be called */
export class GroupMembership {
  readonly #options: MembershipOptions;
  /** Undefined before the first forming, and alone in a group. */
  #place: Place | undefined;
  #isTaken = false;
  /** The latest that the router has named. */
  #epoch = 0;
  #isSevered = false;
  #meeting: AbortController | undefined;
  #closing: Promise<void> = Promise.resolve();

  constructor(options: MembershipOptions) {
    this.#options = options;
  }

  /** Ends the epoch before `epoch` at once: whatever waits for peers fails, so that a running step ends. */
  leave(epoch: number): void {
    this.#epoch = epoch;
    this.#isTaken = false;
    const over = new PeerError("epoch_over", "Cannot finish step: the epoch is over");
    this.#meeting?.abort(over);
    this.#place?.mailbox.close(over);
  }

  /**
   * Takes the place that the router gives, unless it has given another one since, and reports to the router how it went.
   * @throws {ProtocolError} when it is no place in the group
   */
  async take(form: Form, { engine, memory, keyBytes }: HostedEngine): Promise<void> {
    await this.#clear();
    if (form.epoch < this.#epoch) return;
    this.#isSevered = false;
    if (form.index >= form.members.length || form.weights.length !== form.members.length) {
      throw new ProtocolError(`Cannot form group: index ${form.index}, ${form.weights.length} weights`);
    }
    try {
      const exchange = form.members.length === 1 ? ALONE : await this.#connect(form, { memory, keyBytes });
      const { index, weights, matrix, alike, replicaPages, sparseExchange } = form;
      engine.join({ index, map: new PageMap(weights), exchange, matrix, alike, replicaPages, sparseExchange });
      this.#isTaken = true;
      this.#options.tell({ kind: "formed", epoch: form.epoch });
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      this.sever(error);
    }
  }

  /** Hands on what the router chose; a late message of an earlier epoch is dropped. */
  hear(selection: ChosenLists): void {
    if (selection.epoch < this.#epoch) return;
    this.#place?.mailbox.put("router", { ...selection, kind: "selection" });
  }

  /**
   * A step begins.
   * @throws {CodedError} `invalid_step` when the worker is in no group
   */
  begin(index: number, deadlineMs: number): void {
    if (!this.#isTaken) throw new CodedError("invalid_step", `Cannot run step ${index}: the worker is in no group`);
    this.#place?.mailbox.begin(index, deadlineMs);
  }

  /** The step is over. @returns what its exchanges cost; undefined alone in a group */
  end(index: number): ExchangeTiming | undefined {
    this.#place?.mailbox.end(index);
    return this.#place?.exchange.takeTiming();
  }

  /** This worker can no longer use the group: reports that to the router once, and hangs up on the peers. */
  sever({ code, message, peer }: PeerError): void {
    if (code === "epoch_over" || this.#isSevered) return;
    this.#isSevered = true;
    this.#isTaken = false;
    const report = { kind: "severed", epoch: this.#epoch, code, message } as const;
    this.#options.tell(peer === undefined ? report : { ...report, peer });
    this.#place?.mailbox.close(new PeerError(code, message, peer === undefined ? {} : { peer }));
    this.#hangUp();
  }

  /** Leaves for good. */
  async close(): Promise<void> {
    this.leave(Infinity);
    this.#hangUp();
    await this.#closing;
  }

  async #connect(
    form: Form,
    { memory, keyBytes }: Pick<HostedEngine, "memory" | "keyBytes">,
  ): Promise<PeerExchange> {
    const { epoch, index } = form;
    const { conns, lanes } = await this.#meet(form, keyBytes * MAX_TILED_ROWS >= LANE_CHUNK_BYTES);
    const mailbox = new Mailbox({
      epoch,
      onStalled: (step, on) => this.#options.tell({ kind: "stalled", epoch, step, on }),
    });
    const links = new PeerLinks(conns, { mailbox, lanes, onLost: (error) => this.#isTaken && this.sever(error) });
    const exchange = new PeerExchange({
      epoch,
      index,
      peers: links.peers,
      memory,
      mailbox,
      send: (peer, message, onSent) => links.send(peer, message, onSent),
      recycle: (peer, payload) => links.recycle(peer, payload),
      propose: (candidates) => this.#options.tell({ kind: "candidates", ...candidates }),
    });
    this.#place = { mailbox, exchange, links, memory };
    return exchange;
  }

  async #meet(form: Form, wantsLanes: boolean): Promise<Meeting> {
    const meeting = new AbortController();
    this.#meeting = meeting;
    const message = `Cannot form group: its workers have not found each other within ${form.deadlineMs} ms`;
    const timer = setTimeout(() => meeting.abort(new PeerError("peer_late", message)), form.deadlineMs);
    try {
      const conns = await meetPeers(form, { ...this.#options, signal: meeting.signal });
      return { conns, lanes: wantsLanes ? await this.#openLanes(conns, form, meeting.signal) : new Map() };
    } finally {
      clearTimeout(timer);
      this.#meeting = undefined;
    }
  }

  async #openLanes(conns: Meeting["conns"], form: Form, signal: AbortSignal): Promise<Meeting["lanes"]> {
    const { acceptor: { address }, secret, trust, identity, log } = this.#options;
    const onMissing = (peer: number, reason: string) =>
      log(`Worker ${form.index} has no lane to worker ${peer}, and sends it everything on one connection: ${reason}`);
    try {
      // A group that cannot have any must still form in time.
      const deadlineMs = form.deadlineMs / 2;
      return await openLanes(conns, form, { address, secret, trust, identity, signal, onMissing, deadlineMs });
    } catch (error) {
      for (const conn of conns.values()) conn.close();
      throw error;
    }
  }

  #hangUp(): void {
    const { links } = this.#place ?? {};
    this.#closing = Promise.all([this.#closing, links?.close()]).then(() => {});
  }

  /** Frees what the epoch before had. */
  async #clear(): Promise<void> {
    const place = this.#place;
    if (place === undefined) return;
    this.#hangUp();
    await this.#closing;
    this.#place = undefined;
    place.memory.free();
  }
}
