/** Exchanges of two and three workers with a device of their own each, over loopback: all get the same bits. */

import assert from "node:assert/strict";
import type { ExchangePoint, OwnedRange } from "../../engine/exchange.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { type AttentionState, EMPTY_LSE } from "../../kernels/attention/kv_pages.ts";
import { mergeStates } from "../../kernels/attention/merge_states.ts";
import { Commands } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { Acceptor } from "../../workers/acceptor.ts";
import { GpuExchangeMemory } from "../../workers/exchange_memory.ts";
import { Mailbox } from "../../workers/mailbox.ts";
import { PeerError } from "../../workers/errors.ts";
import { PeerExchange } from "../../workers/peer_exchange.ts";
import { meetPeers, PeerLinks } from "../../workers/peer_links.ts";
import { Random } from "../support/random.ts";
import type { WorkerConn } from "../../workers/transport.ts";

const HEADS = 4;
const HEAD_DIM = 64;
const ROWS = 6;
const HIDDEN = 96;

/** A worker of a test. */
class Worker {
  readonly index: number;
  readonly gpu: Gpu;
  readonly commands: Commands;
  readonly memory: GpuExchangeMemory;
  readonly mailbox: Mailbox;
  readonly links: PeerLinks;
  readonly exchange: PeerExchange;

  constructor(index: number, gpu: Gpu, conns: ReadonlyMap<number, WorkerConn>) {
    this.index = index;
    this.gpu = gpu;
    this.commands = new Commands(gpu);
    this.memory = new GpuExchangeMemory(this.commands);
    this.mailbox = new Mailbox({ epoch: 1, onStalled: () => {} });
    this.links = new PeerLinks(conns, { mailbox: this.mailbox, onLost: (error) => this.mailbox.close(error) });
    this.exchange = new PeerExchange({
      epoch: 1,
      index,
      peers: this.links.peers,
      memory: this.memory,
      mailbox: this.mailbox,
      send: (peer, message) => this.links.send(peer, message),
      propose: () => {},
    });
    this.mailbox.begin(1, 5000);
  }

  tensor(shape: readonly number[], values?: Float32Array<ArrayBuffer>): Tensor {
    const tensor = this.gpu.tensor("test", "f32", shape);
    if (values !== undefined) this.gpu.write(tensor, values);
    return tensor;
  }

  async floats(tensor: Tensor): Promise<Float32Array> {
    const [bytes] = await this.memory.read([{ tensor, byteLength: tensor.shape.reduce((a, b) => a * b, 4) }]);
    return new Float32Array(bytes?.buffer ?? new ArrayBuffer(0));
  }

  async close(): Promise<void> {
    this.mailbox.close(new PeerError("epoch_over", "Cannot finish step: the test is over"));
    await this.links.close();
    await this.gpu.close();
  }
}

async function withWorkers(count: number, play: (workers: readonly Worker[]) => Promise<void>): Promise<void> {
  const indices = Array.from({ length: count }, (_, index) => index);
  const listeners = indices.map(() => Deno.listen({ hostname: "127.0.0.1", port: 0 }));
  const secret = "the secret of the group";
  const acceptors = listeners.map((listener) =>
    new Acceptor(listener, { secret, onRefused: () => {}, onAcceptFailed: () => {} })
  );
  const members = listeners.map(({ addr: { hostname, port } }) => ({ hostname, port }));
  const signal = new AbortController().signal;
  const conns = await Promise.all(
    acceptors.map((acceptor, index) =>
      meetPeers({
        epoch: 1,
        index,
        members,
        weights: indices.map(() => 1),
        matrix: false,
        replicaPages: 0,
        sparseExchange: "auto",
        deadlineMs: 1000,
      }, {
        acceptor,
        secret,
        signal,
      })
    ),
  );
  const workers = await Promise.all(indices.map(async (i) => new Worker(i, await Gpu.open(), conns[i] ?? new Map())));
  try {
    await play(workers);
  } finally {
    await Promise.all([...workers.map((worker) => worker.close()), ...acceptors.map((acceptor) => acceptor.close())]);
  }
}

function point(layer: number): ExchangePoint {
  return { step: 1, batch: 0, layer };
}

interface States {
  readonly o: Float32Array<ArrayBuffer>;
  readonly lse: Float32Array<ArrayBuffer>;
}

/** States of each worker; some are empty. */
function statesOf(workers: number): readonly States[] {
  const random = new Random(workers);
  return Array.from({ length: workers }, () => {
    const o = random.normals(ROWS * HEADS * HEAD_DIM);
    const lse = random.normals(ROWS * HEADS, 20).map((value, i) => i % 7 === 3 ? EMPTY_LSE : value);
    lse.forEach((value, i) => value === EMPTY_LSE && o.fill(0, i * HEAD_DIM, (i + 1) * HEAD_DIM));
    return { o, lse };
  });
}

/** All states merged at once on one device. */
async function mergedOn(worker: Worker, states: readonly States[]): Promise<States> {
  const join = (arrays: readonly Float32Array[]) => Float32Array.from(arrays.flatMap((array) => [...array]));
  const out = stateTensors(worker);
  mergeStates(worker.commands, {
    shape: { heads: HEADS, headDim: HEAD_DIM },
    rows: ROWS,
    count: states.length,
    parts: {
      o: worker.tensor([states.length, ROWS, HEADS, HEAD_DIM], join(states.map(({ o }) => o))),
      lse: worker.tensor([states.length, ROWS, HEADS], join(states.map(({ lse }) => lse))),
    },
    out,
  });
  return await read(worker, out);
}

function stateTensors(worker: Worker, states?: States): AttentionState {
  return {
    o: worker.tensor([ROWS, HEADS, HEAD_DIM], states?.o),
    lse: worker.tensor([ROWS, HEADS], states?.lse),
  };
}

async function read(worker: Worker, { o, lse }: AttentionState): Promise<States> {
  return { o: Float32Array.from(await worker.floats(o)), lse: Float32Array.from(await worker.floats(lse)) };
}

/** Rows 0–1 belong to worker 0, and so on, round and round. */
function rangesOf(workers: number): readonly OwnedRange[] {
  return [0, 1, 2].map((i) => ({ first: 2 * i, rows: 2, owner: i % workers }));
}

for (const count of [2, 3]) {
  Deno.test(`PeerExchange.states() gives ${count} workers the bits of one merge, whichever of them hold rows`, async () => {
    await withWorkers(count, async (workers) => {
      const states = statesOf(count);
      const [first] = workers;
      assert.ok(first !== undefined);
      const all = workers.map(() => true);
      const patterns = [all, all.map((_, i) => i === 0), all.map((_, i) => i > 0), all.map((_, i) => i < 0)];
      for (const [layer, holders] of patterns.entries()) {
        const expected = await mergedOn(first, states.filter((_, index) => holders[index]));
        const merged = await Promise.all(workers.map(async (worker, index) => {
          const out = stateTensors(worker);
          const own = { ...stateTensors(worker, states[index]), rows: ROWS, heads: HEADS, headDim: HEAD_DIM };
          await worker.exchange.states(point(layer), undefined, { own, merged: out, holders });
          return await read(worker, out);
        }));
        for (const actual of merged) assert.deepEqual(actual, expected);
      }
    });
  });

  Deno.test(`PeerExchange of ${count} workers sends split rows where they belong`, async () => {
    await withWorkers(count, async (workers) => {
      const states = statesOf(count);
      const [first] = workers;
      assert.ok(first !== undefined);
      const expected = await mergedOn(first, states);
      const ranges = rangesOf(count);
      const owners = Array.from({ length: ROWS }, (_, row) => ranges.find((r) => row < r.first + r.rows)?.owner ?? 0);
      const whole = new Random(9).normals(ROWS * HIDDEN);
      await Promise.all(workers.map(async (worker, index) => {
        const own = whole.map((value, i) => owners[Math.floor(i / HIDDEN)] === index ? value : NaN);
        const q = worker.tensor([ROWS, HIDDEN], own);
        await worker.exchange.queries(point(0), ranges, { tensor: q, rowBytes: HIDDEN * 4 });
        assert.deepEqual(await worker.floats(q), whole);

        const out = stateTensors(worker);
        const part = { ...stateTensors(worker, states[index]), rows: ROWS, heads: HEADS, headDim: HEAD_DIM };
        await worker.exchange.states(point(0), ranges, { own: part, merged: out, holders: workers.map(() => true) });
        const merged = await read(worker, out);
        const mine = owners.flatMap((owner, row) => owner === index ? [row] : []);
        for (const [at, row] of mine.entries()) {
          const [size, heads] = [HEADS * HEAD_DIM, HEADS];
          assert.deepEqual(
            merged.o.subarray(at * size, (at + 1) * size),
            expected.o.subarray(row * size, (row + 1) * size),
          );
          assert.deepEqual(
            merged.lse.subarray(at * heads, (at + 1) * heads),
            expected.lse.subarray(row * heads, (row + 1) * heads),
          );
        }

        const rows = worker.tensor([ROWS, HIDDEN], own);
        await worker.exchange.gatherOnLead(point(1), owners, { tensor: rows, rowBytes: HIDDEN * 4 });
        if (index === 0) assert.deepEqual(await worker.floats(rows), whole);
      }));
    });
  });
}
