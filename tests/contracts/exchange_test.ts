/**
 * The exchange over links between workers, on memory of the host and on a GPU, the exchange in plain memory that the sharded
 * arithmetic is tested with, and that of a worker alone.
 */

import assert from "node:assert/strict";
import { ALONE } from "../../engine/exchange.ts";
import { CandidateRounds } from "../../router/group/candidate_rounds.ts";
import { PeerError } from "../../workers/errors.ts";
import { type ExchangeMemory, GpuExchangeMemory } from "../../workers/exchange_memory.ts";
import { Mailbox } from "../../workers/mailbox.ts";
import { PeerExchange } from "../../workers/peer_exchange.ts";
import { PeerLinks } from "../../workers/peer_links.ts";
import { GpuTensors } from "../support/gpu_tensors.ts";
import { HostMemory } from "../support/host_memory.ts";
import { memoryExchanges } from "../support/memory_exchange.ts";
import { tcpPair } from "../support/tcp_pair.ts";
import { exchangeContract, type ExchangingWorker, type TensorHolder } from "./exchange_contract.ts";

const ROWS = 7;
/** Steps of a group, so that what one leaves behind meets the next. */
const STEPS = [1, 2];
/** Merged in f32 on the GPU, in f64 by the reference. */
const F32_MERGE = 1e-5;

/** All workers run the same steps; what is merged for all has the same bits on each. */
async function runSteps(
  workers: readonly ExchangingWorker[],
  tolerance: number,
  around: { begin(step: number): void; end(step: number): void } = { begin() {}, end() {} },
): Promise<void> {
  for (const step of STEPS) {
    around.begin(step);
    const merged = await Promise.all(
      workers.map((worker) => exchangeContract(worker, { step, rows: ROWS, tolerance })),
    );
    for (const other of merged) assert.deepEqual(other, merged[0]);
    around.end(step);
  }
}

interface Memory {
  readonly tensors: TensorHolder;
  readonly exchanged: ExchangeMemory;
}

/** Links between every two workers, and a router that merges their candidates. */
async function withPeers(memories: readonly Memory[], tolerance: number): Promise<void> {
  const conns = memories.map(() => new Map<number, Deno.TcpConn>());
  for (const [index, own] of conns.entries()) {
    for (const [peer, other] of conns.entries()) {
      if (peer >= index) continue;
      const [near, far] = await tcpPair();
      own.set(peer, near);
      other.set(index, far);
    }
  }
  const mailboxes = memories.map(() => new Mailbox({ epoch: 1, onStalled: () => {} }));
  const links = conns.map((own, index) => {
    const mailbox = mailboxes[index] ?? assert.fail();
    return new PeerLinks(own, { mailbox, onLost: (error) => mailbox.close(error) });
  });
  let rounds = new CandidateRounds(memories.length, 0);
  const workers = memories.map(({ tensors, exchanged }, index): ExchangingWorker => {
    const [mailbox, own] = [mailboxes[index] ?? assert.fail(), links[index] ?? assert.fail()];
    const exchange = new PeerExchange({
      epoch: 1,
      index,
      peers: own.peers,
      memory: exchanged,
      mailbox,
      send: (peer, message, onSent) => own.send(peer, message, onSent),
      recycle: (peer, payload) => own.recycle(peer, payload),
      propose: (candidates) => {
        const choice = rounds.take(index, candidates);
        if (choice === undefined) return;
        for (const each of mailboxes) each.put("router", { kind: "selection", ...choice.message });
      },
    });
    return { index, workers: memories.length, exchange, tensors };
  });
  try {
    await runSteps(workers, tolerance, {
      begin(step) {
        rounds = new CandidateRounds(memories.length, step);
        for (const mailbox of mailboxes) mailbox.begin(step, 60_000);
      },
      end(step) {
        for (const mailbox of mailboxes) mailbox.end(step);
      },
    });
  } finally {
    const over = new PeerError("epoch_over", "Cannot finish step: the test is over");
    for (const mailbox of mailboxes) mailbox.close(over);
    await Promise.all(links.map((each) => each.close()));
    for (const { exchanged } of memories) exchanged.free();
  }
}

async function withGpus(count: number, play: (gpus: readonly GpuTensors[]) => Promise<void>): Promise<void> {
  const gpus = await Promise.all(Array.from({ length: count }, () => GpuTensors.open()));
  try {
    await play(gpus);
  } finally {
    for (const gpu of gpus) await gpu.close();
  }
}

for (const count of [2, 3]) {
  Deno.test(`Exchange contract: PeerExchange of ${count} workers, on memory of the host`, async () => {
    const memories = Array.from({ length: count }, () => new HostMemory());
    await withPeers(memories.map((memory) => ({ tensors: memory, exchanged: memory })), 0);
  });

  Deno.test(`Exchange contract: PeerExchange of ${count} workers, each on a device of its own`, async () => {
    await withGpus(count, async (gpus) => {
      const memories = gpus.map((tensors) => ({ tensors, exchanged: new GpuExchangeMemory(tensors.commands) }));
      await withPeers(memories, F32_MERGE);
    });
  });

  Deno.test(`Exchange contract: MemoryExchange of ${count} workers`, async () => {
    await withGpus(count, async (gpus) => {
      const { exchanges } = memoryExchanges(gpus.map(({ commands }) => commands));
      const workers = gpus.map((tensors, index): ExchangingWorker => {
        return { index, workers: count, exchange: exchanges[index] ?? assert.fail(), tensors };
      });
      await runSteps(workers, F32_MERGE);
      for (const exchange of exchanges) exchange.close();
    });
  });
}

Deno.test("Exchange contract: ALONE, which waits for nothing", async () => {
  const alone = { index: 0, workers: 1, exchange: ALONE, tensors: new HostMemory() };
  await exchangeContract(alone, { step: 1, rows: ROWS, tolerance: 0 });
});
