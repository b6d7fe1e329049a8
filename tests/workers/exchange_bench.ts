/**
 * What an exchange between two workers costs, in pieces and as a whole; by hand:
 * `deno run -A tests/workers/exchange_bench.ts [deno|dawn]`. Two processes on this machine, on one GPU if there is only one.
 */

import { openGpu } from "../../kernels/choose_provider.ts";
import type { Gpu } from "../../kernels/gpu.ts";
import { Commands } from "../../kernels/pipeline.ts";
import { type ExchangeMemory, GpuExchangeMemory } from "../../workers/exchange_memory.ts";
import { Mailbox } from "../../workers/mailbox.ts";
import { PeerExchange } from "../../workers/peer_exchange.ts";
import { PeerLinks } from "../../workers/peer_links.ts";
import type { PeerMessage } from "../../workers/peer_protocol.ts";

const HEADS = 32;
const HEAD_DIM = 128;
const ROW_BYTES = HEADS * HEAD_DIM * 4;

/** Rows of an 8B model: one that decodes, and a share of a prefill chunk. */
const CASES = [{ rows: 1, rounds: 400 }, { rows: 512, rounds: 20 }] as const;

/** Times of the pieces of an exchange, by name. */
class Pieces {
  readonly #times = new Map<string, number[]>();

  time<T>(name: string, work: () => T): T {
    const startedAt = performance.now();
    const done = () => this.#add(name, performance.now() - startedAt);
    const result = work();
    if (result instanceof Promise) return result.finally(done) as T;
    done();
    return result;
  }

  /** What took longest first. */
  print(): void {
    const medians = [...this.#times].map(([name, times]) => ({ name, ms: median(times) }));
    for (const { name, ms } of medians) print(`   ${name.padEnd(36)} ${ms.toFixed(3)}\n`);
    this.#times.clear();
  }

  #add(name: string, ms: number): void {
    const times = this.#times.get(name) ?? [];
    this.#times.set(name, times);
    times.push(ms);
  }
}

/** A memory whose parts of an exchange are timed. */
class TimedMemory extends GpuExchangeMemory {
  readonly #pieces: Pieces;

  constructor(commands: Commands, pieces: Pieces) {
    super(commands);
    this.#pieces = pieces;
  }

  override prepare(...given: Parameters<ExchangeMemory["prepare"]>): ReturnType<ExchangeMemory["prepare"]> {
    const read = this.#pieces.time("record the read, complete commands", () => super.prepare(...given));
    return () => this.#pieces.time("read back", read);
  }

  override expect(): void {
    this.#pieces.time("submit", () => super.expect());
  }

  override deliver(...given: Parameters<ExchangeMemory["deliver"]>): void {
    this.#pieces.time("upload", () => super.deliver(...given));
  }

  override merge(...given: Parameters<ExchangeMemory["merge"]>): void {
    this.#pieces.time("record the merge", () => super.merge(...given));
  }
}

interface Bench {
  readonly gpu: Gpu;
  readonly memory: GpuExchangeMemory;
  readonly mailbox: Mailbox;
  readonly links: PeerLinks;
  readonly exchange: PeerExchange;
  readonly pieces: Pieces;
  readonly index: number;
}

async function open(index: number, conn: Deno.TcpConn): Promise<Bench> {
  const gpu = await openGpu({ choice: PROVIDER });
  const pieces = new Pieces();
  const memory = new TimedMemory(new Commands(gpu), pieces);
  const mailbox = new Mailbox({ epoch: 1, onStalled: () => {} });
  const links = new PeerLinks(new Map([[1 - index, conn]]), { mailbox, onLost: (error) => mailbox.close(error) });
  const exchange = new PeerExchange({
    epoch: 1,
    index,
    peers: [1 - index],
    memory,
    mailbox,
    send: (peer, message, onSent) => pieces.time("send", () => links.send(peer, message, onSent)),
    recycle: (peer, payload) => links.recycle(peer, payload),
    propose: () => {},
  });
  return { gpu, memory, mailbox, links, exchange, pieces, index };
}

/** Both sides send and wait for the other: frames alone, then whole merges of states. */
async function* rounds(bench: Bench, { rows, rounds }: (typeof CASES)[number], step: number): AsyncGenerator<number> {
  const { gpu, memory, mailbox, links, exchange, pieces, index } = bench;
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
  // Each exchange is submitted by the next one, as in a pass.
  for (let layer = 0; layer < rounds; layer++) {
    const startedAt = performance.now();
    const arriving = exchange.states({ step, batch: 1, layer }, undefined, states)?.begin();
    await pieces.time("all until the peer's states are there", async () => await arriving?.arrive());
    yield performance.now() - startedAt;
  }
  await memory.read([]);
  mailbox.end(step);
}

async function main(): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const peer = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.url, PROVIDER, String(listener.addr.port)],
  }).spawn();
  const bench = await open(0, await listener.accept());
  listener.close();
  const { info } = bench.gpu;
  print(`${info.adapter}, ${info.provider}; medians in milliseconds\n`);
  for (const [step, one] of CASES.entries()) {
    const { readBack, upload, submit } = await alone(bench, one);
    const times: number[] = [];
    for await (const ms of rounds(bench, one, step)) times.push(ms);
    print(`\n${one.rows * ROW_BYTES} bytes, each by itself:\n`);
    const frames = median(times.slice(0, one.rounds));
    for (const [name, ms] of Object.entries({ readBack, upload, submit, frames })) {
      print(`   ${name.padEnd(36)} ${ms.toFixed(3)}\n`);
    }
    print(`as parts of an exchange of ${median(times.slice(one.rounds)).toFixed(3)}:\n`);
    bench.pieces.print();
  }
  await peer.status;
  await bench.links.close();
  await bench.gpu.close();
}

/** An upload counts until the GPU has it; waiting for an idle GPU is taken off. */
async function alone({ gpu }: Bench, { rows, rounds }: (typeof CASES)[number]) {
  const tensor = gpu.tensor("bench", "f32", [rows, HEADS, HEAD_DIM]);
  const data = new Float32Array(rows * HEADS * HEAD_DIM);
  const times = { idle: [] as number[], readBack: [] as number[], upload: [] as number[], submit: [] as number[] };
  for (let i = 0; i < rounds; i++) {
    times.idle.push(await timed(() => gpu.read([])));
    times.readBack.push(await timed(() => gpu.read([{ tensor }])));
    times.submit.push(
      await timed(() => gpu.device.queue.submit([gpu.device.createCommandEncoder().finish()])),
    );
    times.upload.push(
      await timed(() => {
        gpu.write(tensor, data);
        return gpu.read([]);
      }),
    );
  }
  const { readBack, upload, idle, submit } = times;
  return { readBack: median(readBack), upload: median(upload) - median(idle), submit: median(submit) };
}

async function timed(work: () => unknown): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

function median(times: readonly number[]): number {
  return times.toSorted((a, b) => a - b)[times.length >> 1] ?? NaN;
}

function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(line));
}

const [provider = "deno", port] = Deno.args;
const PROVIDER = provider === "dawn" ? "dawn" : "deno";
if (port === undefined) await main();
else {
  const bench = await open(1, await Deno.connect({ port: Number(port) }));
  for (const [step, one] of CASES.entries()) {
    for await (const _ of rounds(bench, one, step));
  }
  Deno.exit(0);
}
