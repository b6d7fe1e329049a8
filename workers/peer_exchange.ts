/**
 * The exchange of a group of several workers: own rows and states go from the GPU to the peers, theirs to the GPU, and
 * states are merged in the order of the workers, so that all get the same bits. Knows tensors, ranges and who sends
 * what to whom; knows nothing of connections.
 */

import { at } from "../kernels/at.ts";
import type { RowRange } from "../kernels/attention/row_blocks.ts";
import type { Tensor } from "../kernels/tensor.ts";
import {
  type Candidates,
  type Exchange,
  type ExchangePoint,
  LEAD,
  type OwnedRange,
  type ReadyStates,
} from "../engine/exchange.ts";
import type { ExchangeTiming } from "../engine/span.ts";
import { PeerError } from "./errors.ts";
import { floatsOf, readBytesOf, type ReadList, requestsFor } from "./exchange_memory.ts";
import type { ExchangeOptions } from "./exchange_options.ts";
import { ExchangeTally } from "./exchange_tally.ts";
import { cutLists, joinValues, joinWords } from "./position_lists.ts";
import { KeyMessages, type KeyRows } from "./key_messages.ts";
import type { PeerMessage, Tensors } from "./peer_protocol.ts";
import type { CandidateLists } from "./protocol.ts";
import { SendBuffers } from "./send_buffers.ts";
import { checkParts, StateExchange, type States } from "./state_exchange.ts";

/** Who exchanges, and how what it has to say goes out. */
export interface PeerExchangeOptions extends ExchangeOptions {
  readonly epoch: number;
  /** This worker's own. */
  readonly index: number;
  /**
   * Calls back when the message has left.
   * @throws {PeerError} when the peer is gone
   */
  readonly send: (peer: number, message: PeerMessage, onSent?: () => void) => void;
  /** Offers candidates to the router. */
  readonly propose: (candidates: CandidateLists) => void;
}

interface Rows {
  readonly tensor: Tensor;
  readonly rowBytes: number;
}

/** Rows that are to be completed. */
interface Gathering {
  readonly kind: "queries" | "rows" | "replicas";
  readonly point: ExchangePoint;
  readonly rows: Rows;
  readonly ranges: readonly OwnedRange[];
}

/** See the top of this file; any wait may reject with a `PeerError` */
export class PeerExchange implements Exchange {
  readonly #options: PeerExchangeOptions;
  readonly #tally = new ExchangeTally();
  readonly #states: StateExchange;
  readonly #keys: KeyMessages;
  readonly #sending = new SendBuffers();

  constructor(options: PeerExchangeOptions) {
    this.#options = options;
    this.#keys = new KeyMessages({ ...options, send: (peer, message, onSent) => this.#send(peer, message, onSent) });
    this.#states = new StateExchange({
      ...options,
      sending: this.#sending,
      timed: (read) => this.#tally.read("states", read),
      send: (peer, { point, states, onSent }) =>
        this.#send(peer, { kind: "states", ...this.#tag(point), ...states }, onSent),
    });
  }

  /** What was spent since the last call. */
  takeTiming(): ExchangeTiming {
    return this.#tally.take();
  }

  /** See `Exchange`. */
  queries(point: ExchangePoint, ranges: readonly OwnedRange[], q: Rows): Promise<void> | undefined {
    return this.#complete({ kind: "queries", point, rows: q, ranges });
  }

  /** See `Exchange`. */
  keys(point: ExchangePoint, from: number, rows: KeyRows): Promise<void> {
    this.#tally.count("keys");
    return from === this.#options.index ? this.#keys.send(point, rows) : this.#keys.take(point, from, rows);
  }

  /** See `Exchange`. */
  async tokens(point: ExchangePoint, drawn: Uint32Array): Promise<Uint32Array> {
    const { index, peers, mailbox } = this.#options;
    if (index !== LEAD) return (await mailbox.take(LEAD, "tokens", point)).tokens;
    for (const peer of peers) this.#send(peer, { kind: "tokens", ...this.#tag(point), tokens: drawn });
    return drawn;
  }

  /** See `Exchange`. */
  async sendKeys(point: ExchangePoint, keys: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#tally.count("keys");
    await this.#tally.time("keys", () => this.#keys.sendRead(point, [floatsOf(keys)]));
  }

  /** See `Exchange`: what is spent on keys and values besides is spent while others are computed. */
  waitedForKeys(ms: number): void {
    this.#tally.waited("keys", ms);
  }

  /** See `Exchange`. */
  replicas(point: ExchangePoint, ranges: readonly OwnedRange[], rows: Rows): Promise<void> | undefined {
    return this.#complete({ kind: "replicas", point, rows, ranges });
  }

  /** Everyone gets all rows. */
  #complete(gathering: Gathering): Promise<void> | undefined {
    const { index, peers } = this.#options;
    const { ranges } = gathering;
    const owners = peers.filter((peer) => ranges.some(({ owner }) => owner === peer));
    const own = ranges.filter(({ owner }) => owner === index);
    if (own.length === 0 && owners.length === 0) return undefined;
    return this.#gather(gathering, { own, to: peers, from: owners });
  }

  /** See `Exchange`. */
  gatherOnLead(point: ExchangePoint, owners: readonly number[], rows: Rows): Promise<void> | undefined {
    const { index, peers } = this.#options;
    const ranges = runsOf(owners);
    const own = index === LEAD ? [] : ranges.filter(({ owner }) => owner === index);
    const from = index === LEAD ? peers.filter((peer) => owners.includes(peer)) : [];
    if (own.length === 0 && from.length === 0) return undefined;
    return this.#gather({ kind: "rows", point, rows, ranges }, { own, to: [LEAD], from });
  }

  /** See `Exchange`. */
  states(
    point: ExchangePoint,
    ranges: readonly OwnedRange[] | undefined,
    states: States,
  ): ReadyStates | undefined {
    if (!this.#states.concerns(ranges, states)) return undefined;
    this.#tally.count("states");
    const ready = this.#states.prepare(point, ranges, states);
    return {
      begin: () => {
        const arriving = ready.begin();
        return { arrive: () => this.#tally.time("states", () => arriving.arrive()) };
      },
    };
  }

  /** See `Exchange`. */
  select(point: ExchangePoint, candidates: () => Promise<Candidates>): Promise<readonly Uint32Array[]> {
    const chosen = this.#select(point, candidates);
    // The layer loop awaits it later; until then a failure must not count as unhandled.
    chosen.catch(() => {});
    return chosen;
  }

  /** Sends own rows to some peers, and completes the tensor with those that others own. */
  #gather(
    { kind, point, rows: { tensor, rowBytes }, ranges }: Gathering,
    { own, to, from }: {
      readonly own: readonly RowRange[];
      readonly to: readonly number[];
      readonly from: readonly number[];
    },
  ): Promise<void> {
    this.#tally.count(kind);
    return this.#tally.time(kind, async () => {
      if (own.length > 0) {
        const { rows, onSent } = await this.#readRows(kind, requestsFor(tensor, own, rowBytes), to.length);
        for (const peer of to) this.#send(peer, { kind, ...this.#tag(point), rows }, onSent);
      }
      await Promise.all(from.map(async (peer) => {
        const message = await this.#options.mailbox.take(peer, kind, point);
        this.#write(peer, tensor, {
          runs: ranges.filter(({ owner }) => owner === peer),
          rowBytes,
          parts: message.rows,
        });
      }));
    });
  }

  async #select(point: ExchangePoint, candidates: () => Promise<Candidates>): Promise<readonly Uint32Array[]> {
    const { propose, mailbox } = this.#options;
    const { rows, lists } = await candidates();
    const positions = joinWords(lists.map((list) => list.positions));
    const values = joinValues(lists.map((list) => list.values));
    const lengths = Uint32Array.from(lists, (list) => list.positions.length);
    this.#tally.count("candidates");
    propose({ ...this.#tag(point), rows, lengths, positions, values });
    this.#tally.sent("candidates", positions.byteLength + values.byteLength);
    const chosen = await this.#tally.time("candidates", () => mailbox.take("router", "selection", point));
    const answer = cutLists(chosen.positions, chosen.lengths);
    if (answer.length === lists.length) return answer;
    throw new PeerError("peer_lost", `Cannot use selection: it has ${answer.length} lists, expected ${lists.length}`);
  }

  /** Reads into memory that is free again when the last peer has been sent the rows. */
  async #readRows(
    kind: Gathering["kind"],
    wanted: ReadList,
    peers: number,
  ): Promise<{ readonly rows: Float32Array[]; readonly onSent: () => void }> {
    const into = this.#sending.take(readBytesOf(wanted));
    const bytes = await this.#tally.read(kind, () => this.#options.memory.read(wanted, { into }));
    return { rows: bytes.map(floatsOf), onSent: this.#sending.giveAfter(peers, into) };
  }

  #send(peer: number, message: PeerMessage, onSent?: () => void): void {
    this.#options.send(peer, message, onSent);
    this.#tally.send(message);
  }

  /** Writes what a peer sent, one part for each run of rows. */
  #write(
    peer: number,
    tensor: Tensor,
    { runs, rowBytes, parts }: {
      readonly runs: readonly RowRange[];
      readonly rowBytes: number;
      readonly parts: Tensors;
    },
  ): void {
    checkParts(peer, parts, runs.map(({ rows }) => rows * rowBytes));
    for (const [i, part] of parts.entries()) {
      this.#options.memory.write(tensor, part, at(runs, i).first * rowBytes);
    }
    if (parts[0] !== undefined) this.#options.recycle(peer, parts[0].buffer);
  }

  #tag({ step, batch, layer }: ExchangePoint) {
    return { epoch: this.#options.epoch, step, batch, layer };
  }
}

/** Rows of the same owner that follow each other. */
function runsOf(owners: readonly number[]): readonly OwnedRange[] {
  const runs: OwnedRange[] = [];
  for (const [row, owner] of owners.entries()) {
    const last = runs.at(-1);
    if (last?.owner === owner) runs[runs.length - 1] = { ...last, rows: last.rows + 1 };
    else runs.push({ first: row, rows: 1, owner });
  }
  return runs;
}
