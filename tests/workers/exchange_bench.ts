/**
 * What an exchange between two workers costs, in pieces and as a whole; by hand: `deno run -A tests/workers/exchange_bench.ts`.
 * Two processes on this machine, on one GPU if there is only one.
 */

import { Gpu } from "../../kernels/gpu.ts";
import { Commands } from "../../kernels/pipeline.ts";
import { GpuExchangeMemory } from "../../workers/exchange_memory.ts";
import { Mailbox } from "../../workers/mailbox.ts";
import { PeerExchange } from "../../workers/peer_exchange.ts";
import { PeerLinks } from "../../workers/peer_links.ts";
import type { PeerMessage } from "../../workers/peer_protocol.ts";

const HEADS = 32;
const HEAD_DIM = 128;
const ROW_BYTES = HEADS * HEAD_DIM * 4;

/** Rows of an 8B model: one that decodes, and a share of a prefill chunk. */
const CASES = [{ rows: 1, rounds: 200 }, { rows: 512, rounds: 20 }] as const;

interface Bench {
  readonly gpu: Gpu;
  readonly memory: GpuExchangeMemory;
  readonly mailbox: Mailbox;
  readonly links: PeerLinks;
  readonly exchange: PeerExchange;
  readonly index: number;
}

async function open(index: number, conn: Deno.TcpConn): Promise<Bench> {
  const gpu = await Gpu.open();
  const memory = new GpuExchangeMemory(new Commands(gpu));
  const mailbox = new Mailbox({ epoch: 1, onStalled: () => {} });
  const links = new PeerLinks(new Map([[1 - index, conn]]), { mailbox, onLost: (error) => mailbox.close(error) });
  const exchange = new PeerExchange({
    epoch: 1,
    index,
    peers: [1 - index],
    memory,
    mailbox,
    send: (peer, message) => links.send(peer, message),
    propose: () => {},
  });
  return { gpu, memory, mailbox, links, exchange, index };
}

/** Both sides send and wait for the other: frames alone, then whole merges of states. */
async function* rounds(bench: Bench, { rows, rounds }: (typeof CASES)[number], step: number): AsyncGenerator<number> {
  const { gpu, mailbox, links, exchange, index } = bench;
  mailbox.begin(step, 600_000);
  const data = new Float32Array(rows * HEADS * HEAD_DIM);
  for (let layer = 0; layer < rounds; layer++) {
    const message: PeerMessage = { kind: "rows", epoch: 1, step, batch: 0, layer, rows: [data] };
    const startedAt = performance.now();
    links.send(1 - index, message);
    await mailbox.take(1 - index, "rows", message);
    yield performance.now() - startedAt;
  }
  const tensors = () => ({
    o: gpu.tensor("o", "f32", [rows, HEADS, HEAD_DIM]),
    lse: gpu.tensor("lse", "f32", [rows, HEADS]),
  });
  const states = {
    own: { ...tensors(), rows, heads: HEADS, headDim: HEAD_DIM },
    merged: tensors(),
    holders: [true, true],
  };
  for (let layer = 0; layer < rounds; layer++) {
    const startedAt = performance.now();
    const arriving = await exchange.states({ step, batch: 1, layer }, undefined, states);
    await arriving?.arrive();
    await bench.memory.read([]);
    yield performance.now() - startedAt;
  }
}

async function main(): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const peer = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.url, String(listener.addr.port)],
  }).spawn();
  const bench = await open(0, await listener.accept());
  listener.close();
  const { info } = bench.gpu;
  print(`${info.adapter}; medians in milliseconds\n`);
  print(`${"bytes".padStart(9)}   read-back   upload   TCP both ways   merged states, whole`);
  for (const [step, one] of CASES.entries()) {
    const bytes = one.rows * ROW_BYTES;
    const { readBack, upload } = await pieces(bench, one);
    const times: number[] = [];
    for await (const ms of rounds(bench, one, step)) times.push(ms);
    const cells = [readBack, upload, median(times.slice(0, one.rounds)), median(times.slice(one.rounds))];
    print(`${String(bytes).padStart(9)}   ${cells.map((ms) => ms.toFixed(3).padStart(9)).join("   ")}`);
  }
  await peer.status;
  await bench.links.close();
  bench.mailbox.end();
  await bench.gpu.close();
}

/** An upload counts until the GPU has it; waiting for an idle GPU is taken off. */
async function pieces({ gpu }: Bench, { rows, rounds }: (typeof CASES)[number]) {
  const tensor = gpu.tensor("bench", "f32", [rows, HEADS, HEAD_DIM]);
  const data = new Float32Array(rows * HEADS * HEAD_DIM);
  const times = { idle: [] as number[], readBack: [] as number[], upload: [] as number[] };
  for (let i = 0; i < rounds; i++) {
    times.idle.push(await timed(() => gpu.read([])));
    times.readBack.push(await timed(() => gpu.read([{ tensor }])));
    times.upload.push(
      await timed(() => {
        gpu.write(tensor, data);
        return gpu.read([]);
      }),
    );
  }
  return { readBack: median(times.readBack), upload: median(times.upload) - median(times.idle) };
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

function median(times: readonly number[]): number {
  return times.toSorted((a, b) => a - b)[times.length >> 1] ?? NaN;
}

function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

const [port] = Deno.args;
if (port === undefined) await main();
else {
  const bench = await open(1, await Deno.connect({ port: Number(port) }));
  for (const [step, one] of CASES.entries()) {
    for await (const _ of rounds(bench, one, step));
  }
  Deno.exit(0);
}
