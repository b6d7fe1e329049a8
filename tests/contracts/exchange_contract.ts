/**
 * What the layer loop may expect of every `Exchange`: a step that passes every point that a real one passes, with rows,
 * states and candidates made from indices, and checks what comes back against what all workers together must make of them.
 * Run over each implementation by `exchange_test.ts`, and by the fake engine in every step of a group.
 */

import assert from "node:assert/strict";
import type { Exchange, ExchangePoint, OwnedRange } from "../../engine/exchange.ts";
import type { AttentionState } from "../../kernels/attention/kv_pages.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { merge } from "../reference/merge_states.ts";
import { Random } from "../support/random.ts";

/** Where the tensors of a worker lie. */
export interface TensorHolder {
  /** An f32 tensor that holds the values, or zeros. */
  tensor(label: string, shape: readonly number[], values?: Float32Array<ArrayBuffer>): Tensor;
  /** The values once everything recorded before has run. */
  values(tensor: Tensor): Float32Array | Promise<Float32Array>;
}

/** One worker at its place in a group. */
export interface ExchangingWorker {
  readonly index: number;
  readonly workers: number;
  readonly exchange: Exchange;
  readonly tensors: TensorHolder;
}

/** Where a worker may get stuck. */
export const PHASES = ["begin", "queries", "states", "select", "rows"] as const;
export type Phase = (typeof PHASES)[number];

/** A step of a contract. */
export interface ExchangeStep {
  readonly step: number;
  readonly rows: number;
  /** Called before each phase. @default nothing */
  readonly pass?: (phase: Phase) => Promise<void>;
  /** How far merged states may be off, relative to 1; 0: not by a bit. */
  readonly tolerance: number;
}

interface Place extends ExchangingWorker, ExchangeStep {}

const HEADS = 3;
const HEAD_DIM = 8;
const HIDDEN = 16;
const SETS = 2;
const BUDGET = 16;
const CONTEXT = 60;
const HOLDS_NOTHING = false;

/**
 * One worker's part of a step of `rows` rows over a layer of each role; all workers of the group run it at once.
 * @returns what was merged for every worker, of which all must have the same bits
 */
export async function exchangeContract(worker: ExchangingWorker, step: ExchangeStep): Promise<readonly Float32Array[]> {
  const { pass = () => Promise.resolve() } = step;
  const place: Place = { ...worker, ...step };
  const owners = Array.from({ length: place.rows }, (_, row) => Math.floor(row / 2) % place.workers);
  const ranges = owners.map((owner, first): OwnedRange => ({ first, rows: 1, owner }));
  const point = (batch: number, layer: number): ExchangePoint => ({ step: step.step, batch, layer });
  await pass("begin");
  await pass("queries");
  await complete(place, "queries", { point: point(0, 0), ranges });
  for (let from = 0; from < place.workers; from++) await keys(place, point(from, 0), from);
  await tokens(place, point(0, 0));
  await pass("states");
  const all = Array.from({ length: place.workers }, () => true);
  await states(place, { point: point(0, 0), ranges, holders: all });
  const merged = [await states(place, { point: point(0, 1), ranges: undefined, holders: all })];
  await pass("select");
  await select(place, point(0, 1));
  await complete(place, "replicas", { point: point(0, 1), ranges });
  const lead = all.map((_, index) => index === 0);
  const others = all.map((_, index) => index !== 0);
  merged.push(await states(place, { point: point(0, 2), ranges: undefined, holders: lead }));
  await states(place, { point: point(0, 3), ranges, holders: others });
  merged.push(await states(place, { point: point(1, 0), ranges: undefined, holders: all.map(() => HOLDS_NOTHING) }));
  await pass("rows");
  await gatherOnLead(place, point(1, 3), owners);
  return merged;
}

/** Numbers that every worker can make for every other one. */
function numbers(seed: readonly number[], count: number): Float32Array<ArrayBuffer> {
  return new Random(seed.reduce((hash, one) => Math.imul(hash ^ one, 0x01000193), 0x811c9dc5)).normals(count);
}

async function complete(
  { index, tensors, exchange, rows }: Place,
  kind: "queries" | "replicas",
  { point, ranges }: { readonly point: ExchangePoint; readonly ranges: readonly OwnedRange[] },
): Promise<void> {
  const whole = numbers([point.step, point.layer], rows * HIDDEN);
  const own = whole.slice();
  for (const { first, rows, owner } of ranges) {
    if (owner !== index) own.fill(NaN, first * HIDDEN, (first + rows) * HIDDEN);
  }
  const tensor = tensors.tensor(kind, [rows, HIDDEN], own);
  await exchange[kind](point, ranges, { tensor, rowBytes: HIDDEN * 4 });
  assert.deepEqual(await tensors.values(tensor), whole, `${kind} of step ${point.step}`);
}

async function keys({ index, tensors, exchange, rows }: Place, point: ExchangePoint, from: number): Promise<void> {
  const whole = numbers([point.step, point.layer, from], rows * HIDDEN);
  const tensor = tensors.tensor("keys", [rows, HIDDEN], index === from ? whole : whole.map(() => NaN));
  await exchange.keys(point, from, { tensor, rowBytes: HIDDEN * 4, rows });
  assert.deepEqual(await tensors.values(tensor), whole, `keys of step ${point.step}`);
}

async function tokens({ index, exchange }: Place, point: ExchangePoint): Promise<void> {
  const drawn = Uint32Array.of(point.step, 7);
  assert.deepEqual(await exchange.tokens(point, index === 0 ? drawn : new Uint32Array(2)), drawn);
}

interface StatesPoint {
  readonly point: ExchangePoint;
  readonly ranges: readonly OwnedRange[] | undefined;
  readonly holders: readonly boolean[];
}

async function states(place: Place, { point, ranges, holders }: StatesPoint): Promise<Float32Array> {
  const { index, workers, tensors, exchange, rows } = place;
  const seed = [point.step, point.batch, point.layer];
  const parts = Array.from({ length: workers }, (_, worker) => ({
    o: numbers([...seed, worker, 1], rows * HEADS * HEAD_DIM),
    lse: numbers([...seed, worker, 2], rows * HEADS),
  }));
  const stateOf = (part?: (typeof parts)[number]): AttentionState => ({
    o: tensors.tensor("o", [rows, HEADS, HEAD_DIM], part?.o),
    lse: tensors.tensor("lse", [rows, HEADS], part?.lse),
  });
  const own = stateOf(holders[index] === true ? parts[index] : undefined);
  const merged = stateOf();
  const given = { own: { ...own, rows, heads: HEADS, headDim: HEAD_DIM }, merged, holders };
  await exchange.states(point, ranges, given)?.begin().arrive();
  if (workers === 1) return new Float32Array(0);
  const mine = ranges === undefined
    ? Array.from({ length: rows }, (_, row) => row)
    : ranges.filter(({ owner }) => owner === index).map(({ first }) => first);
  const actual = { o: await tensors.values(merged.o), lse: await tensors.values(merged.lse) };
  const held = parts.filter((_, worker) => holders[worker]);
  for (const [at, row] of mine.entries()) {
    for (let head = 0; head < HEADS; head++) {
      const expected = mergedState(held, row * HEADS + head);
      const to = at * HEADS + head;
      const what = `states of step ${point.step}, row ${row}`;
      assertNear(actual.o.subarray(to * HEAD_DIM, (to + 1) * HEAD_DIM), expected.o, place.tolerance, what);
      assertNear(actual.lse.subarray(to, to + 1), [expected.lse], place.tolerance, what);
    }
  }
  return Float32Array.from([...actual.o, ...actual.lse]);
}

/** @param at row and head */
function mergedState(parts: readonly { readonly o: Float32Array; readonly lse: Float32Array }[], at: number) {
  const held = parts.map(({ o, lse }) => ({
    o: Float64Array.from(o.subarray(at * HEAD_DIM, (at + 1) * HEAD_DIM)),
    lse: lse[at] ?? NaN,
  }));
  return merge(held, HEAD_DIM);
}

function assertNear(actual: Float32Array, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length);
  for (const [i, value] of actual.entries()) {
    const wanted = Math.fround(expected[i] ?? NaN);
    assert.ok(
      Math.abs(value - wanted) <= tolerance * Math.max(1, Math.abs(wanted)),
      `${what}: ${value}, not ${wanted}`,
    );
  }
}

async function select({ index, workers, exchange, rows }: Place, point: ExchangePoint): Promise<void> {
  const lists = Array.from({ length: rows * SETS }, (_, i) => {
    // Rounded, so that there are ties.
    const values = numbers([point.step, i], CONTEXT).map((value) => Math.round(2 * value));
    const ranked = [...values.keys()].sort((a, b) => (values[b] ?? NaN) - (values[a] ?? NaN) || a - b);
    return { values, ranked };
  });
  const sorted = (positions: readonly number[]) => Uint32Array.from(positions.toSorted((a, b) => a - b));
  const row = { position: CONTEXT - 1, budget: BUDGET, sets: SETS };
  const chosen = await exchange.select(point, () =>
    Promise.resolve({
      rows: Array.from({ length: rows }, (_, sequence) => ({ ...row, sequence })),
      lists: lists.map(({ values, ranked }) => {
        const positions = sorted(ranked.filter((position) => position % workers === index).slice(0, BUDGET));
        return { positions, values: Float32Array.from(positions, (position) => values[position] ?? NaN) };
      }),
    }));
  if (workers > 1) assert.deepEqual(chosen, lists.map(({ ranked }) => sorted(ranked.slice(0, BUDGET))));
}

async function gatherOnLead(
  { index, tensors, exchange, rows }: Place,
  point: ExchangePoint,
  owners: readonly number[],
): Promise<void> {
  const whole = numbers([point.step, 99], rows * HIDDEN);
  const own = whole.map((value, i) => owners[Math.floor(i / HIDDEN)] === index ? value : NaN);
  const tensor = tensors.tensor("rows", [rows, HIDDEN], own);
  await exchange.gatherOnLead(point, owners, { tensor, rowBytes: HIDDEN * 4 });
  if (index === 0) assert.deepEqual(await tensors.values(tensor), whole, `rows of step ${point.step}`);
}
