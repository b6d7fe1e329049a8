/**
 * The exchange of a group of several workers: own rows and states go from the GPU to the peers, theirs to the GPU, and
 * states are merged in the order of the workers, so that all get the same bits. Knows tensors, ranges and who owes what to
 * whom; knows nothing of connections.
 */

import { at } from "../kernels/at.ts";
import type { RowRange } from "../kernels/attention/row_blocks.ts";
import type { AttentionState } from "../kernels/attention/kv_pages.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { Candidates, Exchange, ExchangePoint, OwnedRange, PartialStates } from "../engine/exchange.ts";
import type { ExchangeTiming } from "../engine/span.ts";
import { PeerError } from "./errors.ts";
import type { ExchangeMemory } from "./exchange_memory.ts";
import { ExchangeTally } from "./exchange_tally.ts";
import type { Mailbox } from "./mailbox.ts";
import { cutLists, joinPositions, joinValues } from "./position_lists.ts";
import type { PeerMessage, Tensors } from "./peer_protocol.ts";
import type { CandidateLists } from "./protocol.ts";

/** Bytes of an f32. */
const F32 = 4;

/** Whom a worker exchanges with, and through what. */
export interface PeerExchangeOptions {
  readonly epoch: number;
  /** This worker's own. */
  readonly index: number;
  /** Indices of the others. */
  readonly peers: readonly number[];
  readonly memory: ExchangeMemory;
  /** Where what the peers and the router send arrives. */
  readonly mailbox: Mailbox;
  /** @throws {PeerError} when the peer is gone */
  readonly send: (peer: number, message: PeerMessage) => void;
  /** Offers candidates to the router. */
  readonly propose: (candidates: CandidateLists) => void;
}

interface Rows {
  readonly tensor: Tensor;
  readonly rowBytes: number;
}

interface States {
  readonly own: PartialStates;
  readonly merged: AttentionState;
  readonly holders: readonly boolean[];
}

/** Rows that are to be completed. */
interface Gathering {
  readonly kind: "queries" | "rows" | "replicas";
  readonly point: ExchangePoint;
  readonly rows: Rows;
  readonly ranges: readonly OwnedRange[];
}

/** @see the file's paragraph; any wait may reject with a `PeerError` */
export class PeerExchange implements Exchange {
  readonly #options: PeerExchangeOptions;
  #tally = new ExchangeTally();

  constructor(options: PeerExchangeOptions) {
    this.#options = options;
  }

  /** What was spent since the last call. */
  takeTiming(): ExchangeTiming {
    const { timing } = this.#tally;
    this.#tally = new ExchangeTally();
    return timing;
  }

  /** See `Exchange`. */
  queries(point: ExchangePoint, ranges: readonly OwnedRange[], q: Rows): Promise<void> | undefined {
    return this.#complete({ kind: "queries", point, rows: q, ranges });
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
    const own = index === 0 ? [] : ranges.filter(({ owner }) => owner === index);
    const from = index === 0 ? peers.filter((peer) => owners.includes(peer)) : [];
    if (own.length === 0 && from.length === 0) return undefined;
    return this.#gather({ kind: "rows", point, rows, ranges }, { own, to: [0], from });
  }

  /** See `Exchange`. */
  states(point: ExchangePoint, ranges: readonly OwnedRange[] | undefined, states: States): Promise<void> | undefined {
    const { index } = this.#options;
    const mine = runsFor(index, ranges, states.own.rows);
    if (mine.length === 0 && states.holders[index] !== true) return undefined;
    return this.#tally.time("states", () => this.#states(point, ranges, states));
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
    return this.#tally.time(kind, async () => {
      if (own.length > 0) {
        const rows = await this.#read(requests(tensor, own, rowBytes));
        for (const peer of to) this.#send(peer, { kind, ...this.#tag(point), rows });
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

  async #states(point: ExchangePoint, ranges: readonly OwnedRange[] | undefined, states: States): Promise<void> {
    const { index, memory } = this.#options;
    const { own: { rows, heads, headDim }, merged, holders } = states;
    if (holders[index] === true) await this.#sendStates(point, ranges, states.own);
    const mine = runsFor(index, ranges, rows);
    if (mine.length === 0) return;
    const count = mine.reduce((sum, run) => sum + run.rows, 0);
    const from = holders.flatMap((holds, worker) => holds ? [worker] : []);
    const parts = {
      o: memory.take("states o", [from.length, count, heads, headDim]),
      lse: memory.take("states lse", [from.length, count, heads]),
    };
    const place = { mine, count, parts, own: states.own };
    await Promise.all(from.map((worker, part) => this.#fetchStates(point, { ...place, worker, part })));
    memory.merge({ shape: { heads, headDim }, rows: count, count: from.length, parts, out: merged });
  }

  /** Reads what the peers need of the own states, all at once, and sends each its part. */
  async #sendStates(
    point: ExchangePoint,
    ranges: readonly OwnedRange[] | undefined,
    { o, lse, rows, heads, headDim }: PartialStates,
  ): Promise<void> {
    const wanting = this.#options.peers
      .map((peer) => ({ peer, runs: runsFor(peer, ranges, rows) }))
      .filter(({ runs }) => runs.length > 0);
    // Without ranges all peers want the same.
    const lists = ranges === undefined ? wanting.slice(0, 1) : wanting;
    const read = await this.#read(lists.flatMap(({ runs }) => [
      ...requests(o, runs, heads * headDim * F32),
      ...requests(lse, runs, heads * F32),
    ]));
    let at = 0;
    let parts: { readonly o: Tensors; readonly lse: Tensors } = { o: [], lse: [] };
    for (const [i, { peer, runs }] of wanting.entries()) {
      if (i < lists.length) {
        parts = { o: read.slice(at, at + runs.length), lse: read.slice(at + runs.length, at + 2 * runs.length) };
        at += 2 * runs.length;
      }
      this.#send(peer, { kind: "states", ...this.#tag(point), ...parts });
    }
  }

  /** Brings one worker's states of this worker's rows to their place among the parts. */
  async #fetchStates(
    point: ExchangePoint,
    { worker, part, mine, count, parts, own }: {
      readonly worker: number;
      readonly part: number;
      readonly mine: readonly RowRange[];
      readonly count: number;
      readonly parts: AttentionState;
      readonly own: PartialStates;
    },
  ): Promise<void> {
    const { index, mailbox, memory } = this.#options;
    const sizes = { o: own.heads * own.headDim * F32, lse: own.heads * F32 };
    if (worker !== index) {
      const message = await mailbox.take(worker, "states", point);
      const first = part * count;
      const packed = pack(mine, first);
      this.#write(worker, parts.o, { runs: packed, rowBytes: sizes.o, parts: message.o });
      this.#write(worker, parts.lse, { runs: packed, rowBytes: sizes.lse, parts: message.lse });
      return;
    }
    for (const [i, to] of pack(mine, part * count).entries()) {
      for (const name of ["o", "lse"] as const) {
        const range = { from: at(mine, i).first * sizes[name], to: to.first * sizes[name] };
        memory.copy(own[name], parts[name], { ...range, byteLength: to.rows * sizes[name] });
      }
    }
  }

  async #select(point: ExchangePoint, candidates: () => Promise<Candidates>): Promise<readonly Uint32Array[]> {
    const { propose, mailbox } = this.#options;
    const { rows, lists } = await candidates();
    const positions = joinPositions(lists.map((list) => list.positions));
    const values = joinValues(lists.map((list) => list.values));
    const lengths = Uint32Array.from(lists, (list) => list.positions.length);
    propose({ ...this.#tag(point), rows, lengths, positions, values });
    this.#tally.send("candidates", positions.byteLength + values.byteLength);
    const chosen = await this.#tally.time("candidates", () => mailbox.take("router", "selection", point));
    const answer = cutLists(chosen.positions, chosen.lengths);
    if (answer.length === lists.length) return answer;
    throw new PeerError("peer_lost", `Cannot use selection: it has ${answer.length} lists, expected ${lists.length}`);
  }

  async #read(wanted: Parameters<ExchangeMemory["read"]>[0]): Promise<Float32Array<ArrayBuffer>[]> {
    const bytes = await this.#tally.read(() => this.#options.memory.read(wanted));
    return bytes.map(({ buffer, byteOffset, byteLength }) => new Float32Array(buffer, byteOffset, byteLength / F32));
  }

  #send(peer: number, message: PeerMessage): void {
    this.#options.send(peer, message);
    const tensors = message.kind === "states" ? [...message.o, ...message.lse] : message.rows;
    this.#tally.send(message.kind, tensors.reduce((sum, { byteLength }) => sum + byteLength, 0));
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
    const fits = parts.length === runs.length &&
      runs.every(({ rows }, i) => parts[i]?.byteLength === rows * rowBytes);
    if (!fits) {
      const [sent, owed] = [parts.map(({ byteLength }) => byteLength), runs.map(({ rows }) => rows * rowBytes)];
      const message = `Cannot use what worker ${peer} sent: parts of [${sent}] bytes, expected [${owed}]`;
      throw new PeerError("peer_lost", message, { peer });
    }
    for (const [i, part] of parts.entries()) {
      this.#options.memory.write(tensor, part, at(runs, i).first * rowBytes);
    }
  }

  #tag({ step, batch, layer }: ExchangePoint) {
    return { epoch: this.#options.epoch, step, batch, layer };
  }
}

/** The rows whose states a worker wants: its own, or all of them when rows are not shared out. */
function runsFor(worker: number, ranges: readonly OwnedRange[] | undefined, rows: number): readonly RowRange[] {
  if (ranges !== undefined) return ranges.filter(({ owner }) => owner === worker);
  return rows === 0 ? [] : [{ first: 0, rows }];
}

/** The same runs, back to back from a row on. */
function pack(runs: readonly RowRange[], first: number): readonly RowRange[] {
  let next = first;
  return runs.map(({ rows }) => {
    const run = { first: next, rows };
    next += rows;
    return run;
  });
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

function requests(tensor: Tensor, runs: readonly RowRange[], rowBytes: number): Parameters<ExchangeMemory["read"]>[0] {
  return runs.map(({ first, rows }) => ({ tensor, byteOffset: first * rowBytes, byteLength: rows * rowBytes }));
}
