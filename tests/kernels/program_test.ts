/** Programs: what they replay, when they are void, and how many are kept. */

import assert from "node:assert/strict";

import { GpuError } from "../../kernels/errors.ts";
import { Commands, type KernelSpec } from "../../kernels/pipeline.ts";
import { Scratch } from "../../kernels/scratch.ts";
import { reads, writes } from "../../kernels/wgsl.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";

const fixture = gpuFixture();

/** out[0] += x[0] · factor */
const ADD: KernelSpec = {
  bindings: [reads("x", "array<u32>"), writes("out", "array<u32>")],
  params: [["factor", "u32"]],
  source: "@compute @workgroup_size(1) fn main() { out[0] += x[0] * params.factor; }",
};

function add(x: ReturnType<typeof fixture.zeros>, out: ReturnType<typeof fixture.zeros>, factor: number): void {
  const { commands } = fixture;
  commands.dispatch(commands.kernel("add", () => ADD), { tensors: [x, out], params: { factor }, groups: [1, 1, 1] });
}

Deno.test("Commands.replay() repeats dispatches and copies, in order, on what the tensors hold by then", async () => {
  const { commands } = fixture;
  const [x, sum, kept] = [fixture.zeros("u32", [4]), fixture.zeros("u32", [4]), fixture.zeros("u32", [4])];
  const program = await commands.program("sums", (endSection) => {
    add(x, sum, 1);
    add(x, sum, 10);
    commands.copy(sum, kept, { byteLength: 4 });
    endSection();
    add(x, sum, 100);
  });
  assert.equal(program.dispatches, 3);
  assert.equal(program.sections.length, 2);
  assert.deepEqual([...await fixture.words(sum)], [0, 0, 0, 0], "recording runs nothing");
  for (const value of [1, 2]) {
    commands.write(x, Uint32Array.of(value));
    commands.replay(program);
  }
  assert.equal((await fixture.words(kept))[0], 111 + 22);
  assert.equal((await fixture.words(sum))[0], 333);
  commands.replay(program, 1);
  assert.equal((await fixture.words(sum))[0], 533);
});

Deno.test("Commands.replay() binds fixed offsets to the parameters of each dispatch, by pipelines of their own", async () => {
  for (const fixesOffsets of [false, true]) {
    const commands = new Commands(fixture.gpu, { fixesOffsets });
    const [x, out] = [fixture.upload("u32", Uint32Array.of(1, 0, 0, 0), [4]), fixture.zeros("u32", [4])];
    const addTo = (factor: number) =>
      commands.dispatch(commands.kernel("add", () => ADD), {
        tensors: [x, out],
        params: { factor },
        groups: [1, 1, 1],
      });
    const program = await commands.program("factors", () => [1, 10, 1].forEach(addTo));
    for (let step = 0; step < 2; step++) {
      commands.replay(program);
      addTo(1000);
    }
    commands.submit();
    assert.equal((await fixture.gpu.readU32({ tensor: out }))[0], 2024);
    assert.equal(commands.kernels.size, fixesOffsets ? 2 : 1);
    const [first, second, third] = program.sections.flat().flatMap(({ steps }) => steps);
    assert.equal(first?.group, third?.group, "equal parameters share a slot, and so a group");
    assert.equal(first?.group === second?.group, !fixesOffsets);
  }
});

Deno.test("Commands.program() records again what a freed buffer made void, at once or later", async () => {
  const { commands } = fixture;
  commands.dropPrograms();
  const scratch = new Scratch(commands);
  const out = fixture.zeros("u32", [4]);
  let recordings = 0;
  const record = () => {
    recordings++;
    add(scratch.take("grows", "u32", [4]), out, 1);
    add(scratch.take("grows", "u32", [1024]), out, 1);
  };
  const first = await commands.program("grows", record);
  assert.equal(recordings, 2, "the second take freed what the first dispatch reads");
  assert.equal(await commands.program("grows", record), first);
  assert.equal(commands.programs, 1);
  scratch.close();
  assert.equal(commands.programs, 0);
  assert.notEqual(await commands.program("grows", record), first);
  scratch.close();
});

Deno.test("Commands.program() refuses writes, and shape faults leave nothing recorded", async () => {
  const { commands } = fixture;
  const [x, out] = [fixture.zeros("u32", [4]), fixture.zeros("u32", [4])];
  await assert.rejects(
    () => commands.program("writes", () => commands.write(x, Uint32Array.of(1))),
    (error: Error) => error instanceof GpuError && error.message.startsWith("Cannot write test tensor"),
  );
  await assert.rejects(() => commands.program("faulty", () => add(x, out, NaN)), /parameter factor is NaN/);
  add(x, out, 1);
  commands.write(x, Uint32Array.of(5));
  add(x, out, 1);
  assert.equal((await fixture.words(out))[0], 5);
});

Deno.test("Commands.program() keeps a bounded number of programs and parameters, and forgets none that is in use", async () => {
  const { commands } = fixture;
  commands.dropPrograms();
  const [x, out] = [fixture.upload("u32", Uint32Array.of(1, 0, 0, 0), [4]), fixture.zeros("u32", [4])];
  let expected = 0;
  for (let i = 0; i < 60; i++) {
    const factors = Array.from({ length: 50 }, (_, j) => 1 + 50 * i + j);
    const program = await commands.program(`factors ${i}`, () => factors.forEach((factor) => add(x, out, factor)));
    commands.replay(program);
    expected += factors.reduce((sum, factor) => sum + factor, 0);
  }
  assert.equal((await fixture.words(out))[0], expected, "3,000 parameters do not fit the arena at once");
  for (let i = 0; i < 200; i++) await commands.program(`same ${i}`, () => add(x, out, 1));
  assert.ok(commands.programs <= 128, `${commands.programs}`);
});

Deno.test("Commands.hold() keeps what is submitted back until its release, or until something would overtake it", async () => {
  const { commands, gpu } = fixture;
  const [x, out] = [fixture.upload("u32", Uint32Array.of(1, 0, 0, 0), [4]), fixture.zeros("u32", [4])];
  const program = await commands.program("held", () => add(x, out, 1));
  const sum = async () => (await gpu.readU32({ tensor: out }))[0];
  const held = () => {
    commands.hold();
    commands.replay(program);
    commands.submit();
  };
  held();
  assert.equal(await sum(), 0);
  commands.release();
  assert.equal(await sum(), 1);
  held();
  commands.write(x, Uint32Array.of(10));
  assert.equal(await sum(), 2, "a write would have overtaken it");
  held();
  gpu.free(gpu.tensor("another", "u32", [4]));
  assert.equal(await sum(), 12, "a buffer of its own might have been destroyed");
  held();
  add(x, out, 2);
  commands.submit();
  assert.equal(await sum(), 42, "other parameters would have overtaken it");
});

Deno.test("Commands.release() submits what one hold and those before it cover, and keeps what came after", async () => {
  const { commands, gpu } = fixture;
  const [x, out] = [fixture.upload("u32", Uint32Array.of(1, 0, 0, 0), [4]), fixture.zeros("u32", [4])];
  const program = await commands.program("held apart", () => add(x, out, 1));
  const sum = async () => (await gpu.readU32({ tensor: out }))[0];
  const [first, second] = [1, 2].map((times) => {
    const held = commands.hold();
    for (let i = 0; i < times; i++) commands.replay(program);
    commands.submit();
    return held;
  });
  assert.ok(commands.isHolding);
  commands.release(first);
  assert.equal(await sum(), 1);
  commands.release(first);
  assert.equal(await sum(), 1, "it is submitted already, and the second one is not meant");
  commands.release(second);
  assert.equal(await sum(), 3);
  assert.ok(!commands.isHolding);
  commands.replay(program);
  commands.submit();
  assert.equal(await sum(), 4, "nothing is held back any more");
});
