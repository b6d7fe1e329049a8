/** Timed passes: what is counted and in which order, and that ceilings are figures; how fast is not tested. */

import assert from "node:assert/strict";
import { measureCeilings } from "../../kernels/ceilings.ts";
import { floatRows } from "../../kernels/rows.ts";
import { swiglu } from "../../kernels/swiglu.ts";
import { PassTimer } from "../../kernels/timestamps.ts";
import { gpuFixture } from "../support/gpu_fixture.ts";

const fixture = gpuFixture();

Deno.test("PassTimer times every dispatch in order, or passes of many, and nothing once it is detached", async () => {
  const { gpu, commands } = fixture;
  const [gateUp, out] = [fixture.zeros("f32", [4, 32]), fixture.zeros("f32", [4, 16])];
  const record = () => swiglu(commands, { gateUp, out: floatRows(out), rows: 4, width: 16 });
  for (const [unit, counts] of [["dispatch", [1, 1, 1]], ["pass", [2, 1]]] as const) {
    const timer = new PassTimer(gpu, unit);
    commands.observe(timer);
    record();
    record();
    commands.submit();
    record();
    commands.observe(undefined);
    record();
    commands.submit();
    const passes = await timer.read();
    assert.deepEqual(passes.map(({ dispatches }) => dispatches.length), counts);
    let last = 0;
    for (const { startNs, endNs, dispatches } of passes) {
      assert.ok(startNs >= last && endNs > startNs, `${startNs} to ${endNs} after ${last}`);
      assert.equal(dispatches[0]?.kernel, "swiglu silu f32");
      last = startNs;
    }
    assert.deepEqual(await timer.read(), []);
    timer.close();
  }
});

Deno.test("PassTimer counts beyond the queries of one set", async () => {
  const { gpu, commands } = fixture;
  const [gateUp, out] = [fixture.zeros("f32", [4, 32]), fixture.zeros("f32", [4, 16])];
  const timer = new PassTimer(gpu, "dispatch");
  commands.observe(timer);
  for (let i = 0; i < 2500; i++) swiglu(commands, { gateUp, out: floatRows(out), rows: 4, width: 16 });
  commands.observe(undefined);
  const passes = await timer.read();
  assert.equal(passes.length, 2500);
  assert.ok(passes.every(({ startNs, endNs }) => endNs > startNs));
  timer.close();
});

Deno.test("measureCeilings() gives finite positive figures and frees what it allocated", async () => {
  const { gpu, commands } = fixture;
  const before = gpu.allocatedBytes;
  const { readGigabytesPerSecond, fmaTeraflopPerSecond } = await measureCeilings(commands);
  assert.ok(readGigabytesPerSecond > 0.01 && readGigabytesPerSecond < 100_000, `${readGigabytesPerSecond}`);
  assert.ok(fmaTeraflopPerSecond > 0.0001 && fmaTeraflopPerSecond < 10_000, `${fmaTeraflopPerSecond}`);
  assert.equal(gpu.allocatedBytes, before);
});
