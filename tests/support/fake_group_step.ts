/**
 * What a fake engine does in a step when it is not alone: it passes every point that a real one passes, with rows, states
 * and candidates made from indices, and checks what comes back against what all workers together must make of them.
 */

import assert from "node:assert/strict";
import type { ExchangePoint, OwnedRange } from "../../engine/exchange.ts";
import { merge } from "../reference/merge_states.ts";
import type { Membership } from "../../engine/engine.ts";
import type { HostMemory } from "./host_memory.ts";
import { Random } from "./random.ts";

/** Where a worker may get stuck. */
export const PHASES = ["begin", "queries", "states", "select", "rows"] as const;
export type Phase = (typeof PHASES)[number];

const HEADS = 3;
const HEAD_DIM = 8;
const HIDDEN = 16;
const SETS = 2;
const BUDGET = 16;
const CONTEXT = 60;
const NOBODY = false;

/** One step of `rows` rows over a layer of each role; `pass` is called before each point. */
export async function fakeGroupStep(
  { index, map, exchange }: Membership,
  memory: HostMemory,
  { step, rows, pass }: { step: number; rows: number; pass: (phase: Phase) => Promise<void> },
): Promise<void> {
  const place = { index, workers: map.workers, memory, exchange, rows };
  const owners = Array.from({ length: rows }, (_, row) => Math.floor(row / 2) % map.workers);
  const ranges = owners.map((owner, first): OwnedRange => ({ first, rows: 1, owner }));
  await pass("begin");
  await pass("queries");
  await queries(place, { step, batch: 0, layer: 0 }, ranges);
  await pass("states");
  const all = Array.from({ length: map.workers }, () => true);
  await states(place, { step, batch: 0, layer: 0 }, { ranges, holders: all });
  await states(place, { step, batch: 0, layer: 1 }, { ranges: undefined, holders: all });
  await pass("select");
  await select(place, { step, batch: 0, layer: 1 });
  const lead = all.map((_, worker) => worker === 0);
  const others = all.map((_, worker) => worker !== 0);
  await states(place, { step, batch: 0, layer: 2 }, { ranges: undefined, holders: lead });
  await states(place, { step, batch: 0, layer: 3 }, { ranges, holders: others });
  await states(place, { step, batch: 1, layer: 0 }, { ranges: undefined, holders: all.map(() => NOBODY) });
  await pass("rows");
  await gather(place, { step, batch: 1, layer: 3 }, owners);
}

interface Place extends Pick<Membership, "index" | "exchange"> {
  readonly workers: number;
  readonly memory: HostMemory;
  readonly rows: number;
}

/** Numbers that every worker can make for every other one. */
function numbers(seed: readonly number[], count: number): Float32Array<ArrayBuffer> {
  return new Random(seed.reduce((hash, one) => Math.imul(hash ^ one, 0x01000193), 0x811c9dc5)).normals(count);
}

async function queries({ index, memory, exchange, rows }: Place, point: ExchangePoint, ranges: readonly OwnedRange[]) {
  const whole = numbers([point.step, point.layer], rows * HIDDEN);
  const tensor = memory.tensor("q", [rows, HIDDEN], whole);
  for (const { first, rows, owner } of ranges) {
    if (owner !== index) memory.values(tensor).fill(NaN, first * HIDDEN, (first + rows) * HIDDEN);
  }
  await exchange.queries(point, ranges, { tensor, rowBytes: HIDDEN * 4 });
  assert.deepEqual(memory.values(tensor), whole, `queries of step ${point.step}`);
}

async function states(
  { index, workers, memory, exchange, rows }: Place,
  point: ExchangePoint,
  { ranges, holders }: { ranges: readonly OwnedRange[] | undefined; holders: readonly boolean[] },
) {
  const seed = [point.step, point.batch, point.layer];
  const parts = Array.from({ length: workers }, (_, worker) => ({
    o: numbers([...seed, worker, 1], rows * HEADS * HEAD_DIM),
    lse: numbers([...seed, worker, 2], rows * HEADS),
  }));
  const tensorOf = (label: string, values?: Float32Array) =>
    memory.tensor(label, label === "o" ? [rows, HEADS, HEAD_DIM] : [rows, HEADS], values);
  const holds = holders[index] === true;
  const own = {
    o: tensorOf("o", holds ? parts[index]?.o : undefined),
    lse: tensorOf("lse", holds ? parts[index]?.lse : undefined),
  };
  const merged = { o: tensorOf("o"), lse: tensorOf("lse") };
  await exchange.states(point, ranges, { own: { ...own, rows, heads: HEADS, headDim: HEAD_DIM }, merged, holders });
  if (workers === 1) return;
  const mine = ranges === undefined
    ? Array.from({ length: rows }, (_, row) => row)
    : ranges.filter(({ owner }) => owner === index).map(({ first }) => first);
  for (const [at, row] of mine.entries()) {
    for (let head = 0; head < HEADS; head++) {
      const of = row * HEADS + head;
      const held = parts.filter((_, worker) => holders[worker]).map(({ o, lse }) => ({
        o: Float64Array.from(o.subarray(of * HEAD_DIM, (of + 1) * HEAD_DIM)),
        lse: lse[of] ?? NaN,
      }));
      const expected = merge(held, HEAD_DIM);
      const to = at * HEADS + head;
      const actual = memory.values(merged.o).subarray(to * HEAD_DIM, (to + 1) * HEAD_DIM);
      assert.deepEqual(actual, Float32Array.from(expected.o), `states of step ${point.step}, row ${row}`);
      assert.equal(memory.values(merged.lse)[to], Math.fround(expected.lse));
    }
  }
}

async function select({ index, workers, exchange, rows }: Place, point: ExchangePoint) {
  const lists = Array.from({ length: rows * SETS }, (_, i) => {
    const values = numbers([point.step, i], CONTEXT).map((value) => Math.round(2 * value));
    const ranked = [...values.keys()].sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b);
    return { values, ranked };
  });
  const sorted = (positions: readonly number[]) => Uint32Array.from(positions.toSorted((a, b) => a - b));
  const chosen = await exchange.select(point, () =>
    Promise.resolve({
      rows: Array.from(
        { length: rows },
        (_, row) => ({ sequence: row, position: CONTEXT - 1, budget: BUDGET, sets: SETS }),
      ),
      lists: lists.map(({ values, ranked }) => {
        const positions = sorted(ranked.filter((position) => position % workers === index).slice(0, BUDGET));
        return { positions, values: Float32Array.from(positions, (position) => values[position] ?? NaN) };
      }),
    }));
  if (workers > 1) assert.deepEqual(chosen, lists.map(({ ranked }) => sorted(ranked.slice(0, BUDGET))));
}

async function gather({ index, memory, exchange, rows }: Place, point: ExchangePoint, owners: readonly number[]) {
  const whole = numbers([point.step, 99], rows * HIDDEN);
  const own = whole.map((value, i) => owners[Math.floor(i / HIDDEN)] === index ? value : NaN);
  const tensor = memory.tensor("rows", [rows, HIDDEN], own);
  await exchange.gatherOnLead(point, owners, { tensor, rowBytes: HIDDEN * 4 });
  if (index === 0) assert.deepEqual(memory.values(tensor), whole, `rows of step ${point.step}`);
}
