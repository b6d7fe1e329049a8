/**
 * Exchanges of workers in one process whose messages are plain memory: every worker puts its part down and takes those of
 * the others. Simple enough to be compared with.
 */

import type {
  Candidates,
  Exchange,
  ExchangePoint,
  OwnedRange,
  PartialStates,
  ReadyStates,
} from "../../engine/exchange.ts";
import { ADAPTIVE_FLOOR } from "../../engine/layer_plan.ts";
import { mergeStates } from "../../kernels/attention/merge_states.ts";
import type { RowRange } from "../../kernels/attention/row_blocks.ts";
import type { Commands } from "../../kernels/pipeline.ts";
import { Scratch } from "../../kernels/scratch.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { coveringPositions } from "../reference/top_k.ts";

/** What happened at the exchanges of a group, for tests to look at. */
export interface ExchangeCount {
  queries: number;
  keys: number;
  replicas: number;
  states: number;
  selections: number;
  /** States that were empty by agreement and therefore never sent. */
  silent: number;
  /** Where keys and values travelled, by the lead's account. */
  readonly keysAt: Pick<ExchangePoint, "batch" | "layer">[];
  /** What was chosen at each select layer, by the lead's account. */
  readonly chosen: { readonly layer: number; readonly position: number; readonly lists: readonly Uint32Array[] }[];
}

/** Lets all workers put something down at a point and take what the others put there. */
class Meeting {
  readonly #workers: number;
  readonly #tables = new Map<
    string,
    { readonly put: Map<number, unknown>; readonly full: PromiseWithResolvers<unknown[]> }
  >();

  constructor(workers: number) {
    this.#workers = workers;
  }

  meet<T>(key: string, worker: number, thing: T): Promise<T[]> {
    const table = this.#tables.get(key) ?? { put: new Map(), full: Promise.withResolvers<unknown[]>() };
    this.#tables.set(key, table);
    table.put.set(worker, thing);
    if (table.put.size === this.#workers) {
      this.#tables.delete(key);
      table.full.resolve(Array.from({ length: this.#workers }, (_, i) => table.put.get(i)));
    }
    return table.full.promise as Promise<T[]>;
  }
}

/** One worker's end of it; `close` must be called. */
export class MemoryExchange implements Exchange {
  readonly #commands: Commands;
  readonly #index: number;
  readonly #workers: number;
  readonly #meeting: Meeting;
  readonly #count: ExchangeCount;
  readonly #scratch: Scratch;

  constructor(commands: Commands, place: { index: number; workers: number; meeting: Meeting; count: ExchangeCount }) {
    this.#commands = commands;
    this.#index = place.index;
    this.#workers = place.workers;
    this.#meeting = place.meeting;
    this.#count = place.count;
    this.#scratch = new Scratch(commands);
  }

  close(): void {
    this.#scratch.close();
  }

  async queries(
    point: ExchangePoint,
    ranges: readonly OwnedRange[],
    q: { tensor: Tensor; rowBytes: number },
  ): Promise<void> {
    this.#count.queries++;
    await this.#complete(key("queries", point), ranges, q);
  }

  async keys(
    point: ExchangePoint,
    from: number,
    { rows, ...keys }: { tensor: Tensor; rowBytes: number; rows: number },
  ): Promise<void> {
    this.#count.keys++;
    if (this.#index === 0) this.#count.keysAt.push({ batch: point.batch, layer: point.layer });
    await this.#complete(key("keys", point), [{ first: 0, rows, owner: from }], keys);
  }

  async sendKeys(point: ExchangePoint, keys: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#count.keys++;
    await this.#meeting.meet(key("keys", point), this.#index, keys);
  }

  async tokens(point: ExchangePoint, drawn: Uint32Array): Promise<Uint32Array> {
    const [given] = await this.#meeting.meet(key("tokens", point), this.#index, drawn);
    return given ?? drawn;
  }

  waitedForKeys(): void {}

  async replicas(
    point: ExchangePoint,
    ranges: readonly OwnedRange[],
    rows: { tensor: Tensor; rowBytes: number },
  ): Promise<void> {
    this.#count.replicas++;
    await this.#complete(key("replicas", point), ranges, rows);
  }

  async #complete(
    place: string,
    ranges: readonly OwnedRange[],
    q: { tensor: Tensor; rowBytes: number },
  ): Promise<void> {
    const rows = ranges.reduce((sum, range) => sum + range.rows, 0);
    const mine = await this.#read(q.tensor, rows * q.rowBytes);
    const all = await this.#meeting.meet(place, this.#index, mine);
    for (const { first, rows: count, owner } of ranges) {
      const part = all[owner]?.slice(first * q.rowBytes, (first + count) * q.rowBytes) ?? new Uint8Array(0);
      this.#commands.write(q.tensor, part, first * q.rowBytes);
    }
  }

  states(
    point: ExchangePoint,
    ranges: readonly OwnedRange[] | undefined,
    { own, merged, holders }: Parameters<Exchange["states"]>[2],
  ): ReadyStates {
    this.#count.states++;
    const rowBytes = own.heads * own.headDim * 4;
    const staged = this.#commands.prepareRead([
      { tensor: own.o, byteLength: own.rows * rowBytes },
      { tensor: own.lse, byteLength: own.rows * own.heads * 4 },
    ]);
    const wanted = ranges === undefined
      ? [{ first: 0, rows: own.rows }]
      : ranges.filter(({ owner }) => owner === this.#index);
    const rows = wanted.reduce((sum, range) => sum + range.rows, 0);
    const parts = {
      o: this.#scratch.take("o", "f32", [this.#workers, rows, own.heads, own.headDim]),
      lse: this.#scratch.take("lse", "f32", [this.#workers, rows, own.heads]),
    };
    const arrive = async () => {
      const [o = new Uint8Array(0), lse = new Uint8Array(0)] = await this.#commands.gpu.takeRead(staged);
      const all = await this.#meeting.meet(key("states", point), this.#index, { o, lse });
      const packed = this.#pack(all, { own, holders, wanted, rows });
      this.#commands.deliver(parts.o, packed.o);
      this.#commands.deliver(parts.lse, packed.lse);
      this.#commands.delivered();
    };
    return {
      begin: () => {
        this.#commands.expect();
        mergeStates(this.#commands, { shape: own, rows, count: this.#workers, parts, out: merged });
        return { arrive };
      },
    };
  }

  #pack(
    all: readonly { readonly o: Uint8Array; readonly lse: Uint8Array<ArrayBuffer> }[],
    { own, holders, wanted, rows }: {
      readonly own: PartialStates;
      readonly holders: readonly boolean[];
      readonly wanted: readonly RowRange[];
      readonly rows: number;
    },
  ) {
    const rowBytes = own.heads * own.headDim * 4;
    const o = new Uint8Array(this.#workers * rows * rowBytes);
    const lse = new Float32Array(this.#workers * rows * own.heads).fill(-1e30);
    all.forEach((state, worker) => {
      if (!holders[worker]) {
        this.#count.silent++;
        return;
      }
      let at = worker * rows;
      for (const { first, rows: count } of wanted) {
        o.set(state.o.subarray(first * rowBytes, (first + count) * rowBytes), at * rowBytes);
        const values = new Float32Array(state.lse.buffer);
        lse.set(values.subarray(first * own.heads, (first + count) * own.heads), at * own.heads);
        at += count;
      }
    });
    return { o, lse };
  }

  async select(point: ExchangePoint, candidates: () => Promise<Candidates>): Promise<readonly Uint32Array[]> {
    this.#count.selections++;
    const mine = await candidates();
    const all = await this.#meeting.meet(key("select", point), this.#index, mine);
    const lists = chooseBySorting(all);
    if (this.#index === 0) {
      this.#count.chosen.push({ layer: point.layer, position: mine.rows[0]?.position ?? NaN, lists });
    }
    return lists;
  }

  async gatherOnLead(
    point: ExchangePoint,
    owners: readonly number[],
    rows: { tensor: Tensor; rowBytes: number },
  ): Promise<void> {
    const mine = await this.#read(rows.tensor, owners.length * rows.rowBytes);
    const all = await this.#meeting.meet(key("rows", point), this.#index, mine);
    owners.forEach((owner, row) => {
      const part = all[owner]?.slice(row * rows.rowBytes, (row + 1) * rows.rowBytes) ?? new Uint8Array(0);
      this.#commands.write(rows.tensor, part, row * rows.rowBytes);
    });
  }

  async #read(tensor: Tensor, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#commands.submit();
    const [bytes] = await this.#commands.gpu.read([{ tensor, byteLength }]);
    return bytes ?? new Uint8Array(0);
  }
}

/** The choice over all workers' candidates by a full sort: value descending, position ascending, cut at the bounds. */
function chooseBySorting(all: readonly Candidates[]): Uint32Array[] {
  const rows = (all[0]?.rows ?? []).flatMap((row) => Array.from({ length: row.sets }, () => row));
  return rows.map(({ budget, coverage }, list) => {
    const entries = all.flatMap(({ lists }) => {
      const { positions = new Uint32Array(0), values = new Float32Array(0) } = lists[list] ?? {};
      return [...positions].map((position, i) => ({ position, value: values[i] ?? NaN }));
    });
    entries.sort((a, b) => b.value - a.value || a.position - b.position);
    const best = coverage === undefined
      ? entries.slice(0, budget).map((_, i) => i)
      : coveringPositions(entries.map(({ value }) => value), { cap: budget, floor: ADAPTIVE_FLOOR, coverage });
    return Uint32Array.from(best, (i) => entries[i]?.position ?? NaN).sort();
  });
}

function key(kind: string, { step, batch, layer }: ExchangePoint): string {
  return `${kind} ${step} ${batch} ${layer}`;
}

/** The exchanges of a group, one for each worker, which records on its own device. */
export function memoryExchanges(
  workers: readonly Commands[],
): { readonly exchanges: readonly MemoryExchange[]; readonly count: ExchangeCount } {
  const counts = { queries: 0, keys: 0, replicas: 0, states: 0, selections: 0, silent: 0 };
  const count: ExchangeCount = { ...counts, keysAt: [], chosen: [] };
  const meeting = new Meeting(workers.length);
  const exchanges = workers.map((commands, index) =>
    new MemoryExchange(commands, { index, workers: workers.length, meeting, count })
  );
  return { exchanges, count };
}
