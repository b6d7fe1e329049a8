/**
 * The exchange of attention states: what a worker has computed over its slice goes to the peers, theirs is merged with it
 * in the order of the workers, so that all get the same bits. The merge is recorded before any state is there, so that the
 * engine records what follows while its own states are computed. Knows tensors and ranges; knows nothing of connections.
 */

import { at } from "../kernels/at.ts";
import type { AttentionState } from "../kernels/attention/kv_pages.ts";
import type { RowRange } from "../kernels/attention/row_blocks.ts";
import type { Tensor } from "../kernels/tensor.ts";
import type { ArrivingStates, ExchangePoint, OwnedRange, PartialStates, ReadyStates } from "../engine/exchange.ts";
import { PeerError } from "./errors.ts";
import { floatsOf, type PreparedRead, readBytesOf, requestsFor } from "./exchange_memory.ts";
import type { ExchangeOptions } from "./exchange_options.ts";
import type { PeerMessage, Tensors } from "./peer_protocol.ts";
import type { SendBuffers } from "./send_buffers.ts";

/** Bytes of an f32, and words of the smallest distance of two bindings that every adapter allows. */
const [F32, ALIGNMENT] = [4, 64] as const;

/** What an exchange of states is given; see `Exchange.states`. */
export interface States {
  readonly own: PartialStates;
  readonly merged: AttentionState;
  readonly holders: readonly boolean[];
}

/** What a peer needs of this worker's states, as it is sent. */
type StateTensors = Pick<Extract<PeerMessage, { readonly kind: "states" }>, "o" | "lse">;

/** Own states that a read was recorded for. */
interface OwnStates {
  /** Which rows each peer wants of them; those that want none are left out. */
  readonly wanting: readonly { readonly peer: number; readonly runs: readonly RowRange[] }[];
  /** The runs that are read, in this order; without ranges all peers want the same. */
  readonly lists: readonly (readonly RowRange[])[];
  readonly bytes: number;
  readonly read: PreparedRead;
}

/** What all peers want of own states, while it is needed here as well. */
interface SentStates {
  readonly states: StateTensors;
  /** To be called when it is not needed any more. */
  readonly done: () => void;
}

/** Where the states that are merged lie: part by part in the order of the workers that hold any. */
interface Parts {
  readonly whole: Tensor;
  readonly o: Tensor;
  readonly lse: Tensor;
  /** By part. */
  readonly workers: readonly number[];
  readonly rows: number;
}

/** What this needs of the exchange that it is a part of. */
export interface StateExchangeOptions extends ExchangeOptions {
  /** This worker's own. */
  readonly index: number;
  /** Memory for what is sent. */
  readonly sending: SendBuffers;
  /** Times a read-back. */
  readonly timed: <T>(read: () => Promise<T>) => Promise<T>;
  /** To a peer; adds what the message is about. */
  readonly send: (
    peer: number,
    message: { readonly point: ExchangePoint; readonly states: StateTensors; readonly onSent: () => void },
  ) => void;
}

/** See the top of this file. */
export class StateExchange {
  readonly #options: StateExchangeOptions;

  constructor(options: StateExchangeOptions) {
    this.#options = options;
  }

  /** Whether a worker has anything to send or to merge. */
  concerns(ranges: readonly OwnedRange[] | undefined, { own, holders }: States): boolean {
    const { index } = this.#options;
    return holders[index] === true || runsFor(index, ranges, own.rows).length > 0;
  }

  /** Records the read of own states. */
  prepare(point: ExchangePoint, ranges: readonly OwnedRange[] | undefined, states: States): ReadyStates {
    const { index } = this.#options;
    const own = states.holders[index] === true ? this.#prepareOwn(ranges, states.own) : undefined;
    return { begin: () => this.#begin(point, ranges, { ...states, prepared: own }) };
  }

  /** Has own states computed, and records the merge where this worker has rows. */
  #begin(
    point: ExchangePoint,
    ranges: readonly OwnedRange[] | undefined,
    { prepared, ...states }: States & { readonly prepared: OwnStates | undefined },
  ): ArrivingStates {
    const { index, memory } = this.#options;
    const { own, merged } = states;
    memory.expect();
    const mine = runsFor(index, ranges, own.rows);
    const parts = mine.length === 0 ? undefined : this.#partsOf(states, mine);
    if (parts !== undefined) {
      if (ranges !== undefined && prepared !== undefined) this.#copyOwn(own, mine, parts);
      const { heads, headDim } = own;
      memory.merge({ shape: { heads, headDim }, rows: parts.rows, count: parts.workers.length, parts, out: merged });
    }
    const arrive = async () => {
      const sent = prepared && await this.#send(point, prepared);
      if (parts !== undefined) {
        if (ranges === undefined) await this.#arriveTogether(point, parts, sent?.states);
        else await this.#arriveApart(point, { parts, mine, own });
      }
      sent?.done();
    };
    return { arrive: () => arrive().finally(() => memory.delivered()) };
  }

  /** Records one read of all that the peers need. */
  #prepareOwn(
    ranges: readonly OwnedRange[] | undefined,
    { o, lse, rows, heads, headDim }: PartialStates,
  ): OwnStates {
    const { peers, memory } = this.#options;
    const wanting = peers
      .map((peer) => ({ peer, runs: runsFor(peer, ranges, rows) }))
      .filter(({ runs }) => runs.length > 0);
    const lists = (ranges === undefined ? wanting.slice(0, 1) : wanting).map(({ runs }) => runs);
    const wanted = lists.flatMap((runs) => [
      ...requestsFor(o, runs, heads * headDim * F32),
      ...requestsFor(lse, runs, heads * F32),
    ]);
    return { wanting, lists, bytes: readBytesOf(wanted), read: memory.prepare(wanted) };
  }

  /** Waits for own states, and sends each peer its part. @returns what all of them want, without ranges */
  async #send(point: ExchangePoint, { wanting, lists, bytes: length, read }: OwnStates): Promise<SentStates> {
    const { sending, timed, send } = this.#options;
    const into = sending.take(length);
    const bytes = (await timed(() => read(into))).map(floatsOf);
    // The peers, and this worker.
    const done = sending.giveAfter(wanting.length + 1, into);
    let [next, states]: [number, StateTensors] = [0, { o: [], lse: [] }];
    for (const [i, { peer, runs }] of wanting.entries()) {
      if (i < lists.length) {
        states = {
          o: bytes.slice(next, next + runs.length),
          lse: bytes.slice(next + runs.length, next + 2 * runs.length),
        };
        next += 2 * runs.length;
      }
      send(peer, { point, states, onSent: done });
    }
    return { states, done };
  }

  #partsOf({ own: { heads, headDim }, holders }: States, mine: readonly RowRange[]): Parts {
    const workers = holders.flatMap((holds, worker) => holds ? [worker] : []);
    const rows = mine.reduce((sum, run) => sum + run.rows, 0);
    // Without any state there is still something to bind.
    const parts = Math.max(1, workers.length) * rows;
    const words = { o: parts * heads * headDim, lse: parts * heads };
    const lseAt = Math.ceil(words.o / ALIGNMENT) * ALIGNMENT;
    // In one tensor, so that one upload brings all.
    const whole = this.#options.memory.take("states", [lseAt + words.lse]);
    const window = (from: number, length: number, shape: readonly number[]) => ({
      ...whole,
      byteOffset: whole.byteOffset + from * F32,
      byteLength: length * F32,
      shape,
    });
    return {
      whole,
      o: window(0, words.o, [workers.length, rows, heads, headDim]),
      lse: window(lseAt, words.lse, [workers.length, rows, heads]),
      workers,
      rows,
    };
  }

  /** Brings this worker's states of its own rows to their place among the parts. */
  #copyOwn(own: PartialStates, mine: readonly RowRange[], parts: Parts): void {
    const { index, memory } = this.#options;
    const first = parts.workers.indexOf(index) * parts.rows;
    for (const [i, to] of pack(mine, first).entries()) {
      for (const name of ["o", "lse"] as const) {
        const bytes = rowBytesOf(own)[name];
        const range = { from: at(mine, i).first * bytes, to: to.first * bytes };
        memory.copy(own[name], parts[name], { ...range, byteLength: to.rows * bytes });
      }
    }
  }

  /** All rows of all workers, own ones among them, in one upload. */
  async #arriveTogether(point: ExchangePoint, { whole, o, lse, workers }: Parts, sent?: StateTensors): Promise<void> {
    const { index, memory } = this.#options;
    if (workers.length === 0) return;
    const data = new Float32Array((lse.byteOffset - whole.byteOffset + lse.byteLength) / F32);
    const lseAt = (lse.byteOffset - whole.byteOffset) / F32;
    const lengths = { o: o.byteLength / F32 / workers.length, lse: lse.byteLength / F32 / workers.length };
    await Promise.all(workers.map(async (worker, part) => {
      const states = worker === index ? sent : await this.#take(worker, point, {
        o: [lengths.o * F32],
        lse: [lengths.lse * F32],
      });
      data.set(states?.o[0] ?? [], part * lengths.o);
      data.set(states?.lse[0] ?? [], lseAt + part * lengths.lse);
      if (worker !== index) this.#recycle(worker, states);
    }));
    memory.deliver(whole, data, 0);
  }

  /** Each peer's states of this worker's rows, run by run. */
  async #arriveApart(
    point: ExchangePoint,
    { parts, mine, own }: { readonly parts: Parts; readonly mine: readonly RowRange[]; readonly own: PartialStates },
  ): Promise<void> {
    const { index, memory } = this.#options;
    const bytes = rowBytesOf(own);
    const owed = { o: mine.map(({ rows }) => rows * bytes.o), lse: mine.map(({ rows }) => rows * bytes.lse) };
    await Promise.all(parts.workers.map(async (worker, part) => {
      if (worker === index) return;
      const states = await this.#take(worker, point, owed);
      for (const [i, { first }] of pack(mine, part * parts.rows).entries()) {
        for (const name of ["o", "lse"] as const) {
          memory.deliver(parts[name], at(states[name], i), first * bytes[name]);
        }
      }
      this.#recycle(worker, states);
    }));
  }

  /** All parts of a message lie in the same memory. */
  #recycle(peer: number, states?: StateTensors): void {
    const [part] = states?.o ?? [];
    if (part !== undefined) this.#options.recycle(peer, part.buffer);
  }

  /** @param owed bytes of each part */
  async #take(
    peer: number,
    point: ExchangePoint,
    owed: { readonly o: readonly number[]; readonly lse: readonly number[] },
  ): Promise<StateTensors> {
    const states = await this.#options.mailbox.take(peer, "states", point);
    for (const name of ["o", "lse"] as const) checkParts(peer, states[name], owed[name]);
    return states;
  }
}

/**
 * Checks what a peer sent.
 * @param owed bytes of each part
 * @throws {PeerError} `peer_lost`
 */
export function checkParts(peer: number, parts: Tensors, owed: readonly number[]): void {
  if (parts.length === owed.length && owed.every((bytes, i) => parts[i]?.byteLength === bytes)) return;
  const sent = parts.map(({ byteLength }) => byteLength);
  const message = `Cannot use what worker ${peer} sent: parts of [${sent}] bytes, expected [${owed}]`;
  throw new PeerError("peer_lost", message, { peer });
}

function rowBytesOf({ heads, headDim }: PartialStates) {
  return { o: heads * headDim * F32, lse: heads * F32 };
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
