/** What an exchange may expect of the memory that its tensors lie in: that of a GPU, and the fake on the host. */

import assert from "node:assert/strict";
import { EMPTY_LSE } from "../../kernels/attention/kv_pages.ts";
import { type ExchangeMemory, GpuExchangeMemory } from "../../workers/exchange_memory.ts";
import { GpuTensors } from "../support/gpu_tensors.ts";
import { HostMemory } from "../support/host_memory.ts";
import type { TensorHolder } from "./exchange_contract.ts";

const F32 = 4;
/** Merged in f32 on the GPU. */
const MERGE_TOLERANCE = 1e-6;

/** Registers the suite. */
function exchangeMemoryContract(
  name: string,
  open: () => Promise<{ readonly memory: ExchangeMemory; readonly tensors: TensorHolder; close(): Promise<void> }>,
): void {
  Deno.test(`ExchangeMemory contract: ${name}`, async (t) => {
    const { memory, tensors, close } = await open();
    try {
      await t.step("reads fresh copies of the bytes that were asked for", () => readsCopies(memory, tensors));
      await t.step("reads what was written before, and not what comes after", () => keepsOrder(memory, tensors));
      await t.step("reads what was prepared: what was recorded before, not after", () => reads(memory, tensors));
      await t.step("copies ranges between tensors", () => copiesRanges(memory, tensors));
      await t.step("merges states by their log-sum-exp; empty ones change nothing", () => merges(memory, tensors));
      await t.step("merges what is delivered after the merge was recorded", () => mergesLate(memory, tensors));
      await t.step("lends working memory by name until it is freed", () => lends(memory));
    } finally {
      memory.free();
      await close();
    }
  });
}

function counted(length: number, from = 0): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, (_, i) => from + i);
}

async function floats(memory: ExchangeMemory, ...requests: Parameters<ExchangeMemory["read"]>[0]): Promise<number[][]> {
  const read = await memory.read(requests);
  return read.map(({ buffer, byteOffset, byteLength }) => [...new Float32Array(buffer, byteOffset, byteLength / F32)]);
}

async function readsCopies(memory: ExchangeMemory, tensors: TensorHolder): Promise<void> {
  const [a, b] = [tensors.tensor("a", [4], counted(4)), tensors.tensor("b", [2, 4], counted(8, 10))];
  const asked = [{ tensor: b, byteOffset: 4 * F32, byteLength: 3 * F32 }, { tensor: a, byteLength: 2 * F32 }];
  assert.deepEqual(await floats(memory, ...asked), [[14, 15, 16], [0, 1]]);
  const [bytes] = await memory.read([{ tensor: a, byteLength: 4 * F32 }]);
  bytes?.fill(255);
  assert.deepEqual(await floats(memory, { tensor: a, byteLength: 4 * F32 }), [[0, 1, 2, 3]]);
  const into = new Uint8Array(32).fill(9);
  const [first, second] = await memory.read(asked, { into });
  assert.deepEqual([first?.buffer, second?.buffer], [into.buffer, into.buffer]);
  assert.deepEqual([...new Float32Array(into.buffer, 0, 3)], [14, 15, 16]);
  assert.deepEqual([...new Float32Array(into.buffer, 16, 2)], [0, 1]);
  assert.deepEqual(await memory.read([]), []);
}

async function keepsOrder(memory: ExchangeMemory, tensors: TensorHolder): Promise<void> {
  const tensor = tensors.tensor("t", [4], counted(4));
  memory.write(tensor, counted(2, 50), 2 * F32);
  const reading = floats(memory, { tensor, byteLength: 4 * F32 });
  assert.deepEqual(await reading, [[0, 1, 50, 51]]);
  memory.write(tensor, counted(1, 7), 0);
  memory.write(tensor, counted(1, 8), 0);
  assert.deepEqual(await floats(memory, { tensor, byteLength: 4 * F32 }), [[8, 1, 50, 51]]);
}

async function reads(memory: ExchangeMemory, tensors: TensorHolder): Promise<void> {
  const [tensor, from] = [tensors.tensor("t", [4], counted(4)), tensors.tensor("from", [4], counted(4, 20))];
  memory.copy(from, tensor, { from: 0, to: 0, byteLength: 1 * F32 });
  const read = memory.prepare([{ tensor, byteLength: 4 * F32 }]);
  memory.expect();
  memory.copy(from, tensor, { from: 0, to: 1 * F32, byteLength: 1 * F32 });
  const [bytes] = await read();
  assert.deepEqual([...new Float32Array(bytes?.buffer ?? new ArrayBuffer(0))], [20, 1, 2, 3]);
  memory.delivered();
  assert.deepEqual(await floats(memory, { tensor, byteLength: 4 * F32 }), [[20, 20, 2, 3]]);
  const into = new Float32Array(new SharedArrayBuffer(4 * F32));
  const again = memory.prepare([{ tensor, byteLength: 4 * F32 }]);
  memory.expect();
  const [shared] = await again(new Uint8Array(into.buffer));
  memory.delivered();
  assert.equal(shared?.buffer, into.buffer);
  assert.deepEqual([...into], [20, 20, 2, 3]);
}

async function copiesRanges(memory: ExchangeMemory, tensors: TensorHolder): Promise<void> {
  const [from, to] = [tensors.tensor("from", [6], counted(6)), tensors.tensor("to", [6], counted(6, 20))];
  memory.copy(from, to, { from: 1 * F32, to: 3 * F32, byteLength: 2 * F32 });
  memory.write(from, counted(6, 90), 0);
  assert.deepEqual(await floats(memory, { tensor: to, byteLength: 6 * F32 }), [[20, 21, 22, 1, 2, 25]]);
}

async function mergesLate(memory: ExchangeMemory, tensors: TensorHolder): Promise<void> {
  const shape = { heads: 1, headDim: 4 };
  const parts = { o: tensors.tensor("o", [1, 1, 1, 4], counted(4)), lse: tensors.tensor("lse", [1, 1, 1]) };
  const out = { o: tensors.tensor("o", [1, 1, 4]), lse: tensors.tensor("lse", [1, 1]) };
  memory.expect();
  memory.merge({ shape, rows: 1, count: 1, parts, out });
  memory.deliver(parts.o, counted(4, 10), 0);
  memory.delivered();
  const [o] = await floats(memory, { tensor: out.o, byteLength: 4 * F32 });
  assert.deepEqual(o, [10, 11, 12, 13]);
}

async function merges(memory: ExchangeMemory, tensors: TensorHolder): Promise<void> {
  const shape = { heads: 2, headDim: 4 };
  // Head 0: an empty state and one that counts; head 1: two that weigh the same.
  const parts = {
    o: tensors.tensor("o", [2, 1, 2, 4], Float32Array.of(0, 0, 0, 0, 1, 2, 3, 4, 9, 8, 7, 6, 3, 4, 5, 6)),
    lse: tensors.tensor("lse", [2, 1, 2], Float32Array.of(EMPTY_LSE, 1, 2, 1)),
  };
  const out = { o: tensors.tensor("o", [1, 2, 4]), lse: tensors.tensor("lse", [1, 2]) };
  memory.merge({ shape, rows: 1, count: 2, parts, out });
  const [o, lse] = await floats(memory, { tensor: out.o, byteLength: 8 * F32 }, {
    tensor: out.lse,
    byteLength: 2 * F32,
  });
  for (const [i, value] of [9, 8, 7, 6, 2, 3, 4, 5].entries()) assert.ok(near(o?.[i], value));
  for (const [i, value] of [2, 1 + Math.LN2].entries()) assert.ok(near(lse?.[i], value));
}

function near(actual: number | undefined, expected: number): boolean {
  return Math.abs((actual ?? NaN) - expected) <= MERGE_TOLERANCE * expected;
}

async function lends(memory: ExchangeMemory): Promise<void> {
  const [one, two] = [memory.take("one", [4]), memory.take("two", [4])];
  memory.write(one, counted(4, 1), 0);
  memory.write(two, counted(4, 5), 0);
  const asked = { tensor: one, byteLength: 4 * F32 };
  assert.deepEqual(await floats(memory, asked, { tensor: two, byteLength: 4 * F32 }), [[1, 2, 3, 4], [5, 6, 7, 8]]);
  memory.free();
  const larger = memory.take("one", [8]);
  assert.deepEqual(larger.shape, [8]);
  memory.write(larger, counted(8), 0);
  assert.deepEqual(await floats(memory, { tensor: larger, byteLength: 8 * F32 }), [[...counted(8)]]);
}

exchangeMemoryContract("GpuExchangeMemory", async () => {
  const tensors = await GpuTensors.open();
  return { memory: new GpuExchangeMemory(tensors.commands), tensors, close: () => tensors.close() };
});

exchangeMemoryContract("HostMemory", () => {
  const memory = new HostMemory();
  return Promise.resolve({ memory, tensors: memory, close: () => Promise.resolve() });
});
