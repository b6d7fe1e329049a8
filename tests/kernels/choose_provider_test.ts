import assert from "node:assert/strict";
import { type GpuChoice, openGpu, type Providers } from "../../kernels/choose_provider.ts";
import { DENO } from "../../kernels/deno_provider.ts";
import { GpuError } from "../../kernels/errors.ts";
import type { AdapterDescription, GpuProvider, MatrixShape } from "../../kernels/provider.ts";

const SHAPE: MatrixShape = { m: 16, n: 16, k: 16, input: "f16", result: "f32" };
const UNITS: AdapterDescription = { name: "card", vendor: "maker", software: false, matrix: [SHAPE] };

/** Deno's own devices under another description; whatever they are said to have, their matrix units fail the self-test. */
function faked(name: GpuProvider["name"], adapters: () => Promise<readonly AdapterDescription[]>): GpuProvider {
  return {
    name,
    adapters,
    async open() {
      const [adapter] = await adapters();
      const opened = await DENO.open();
      return {
        ...opened,
        adapter: adapter ?? opened.adapter,
        traits: { ...opened.traits, matrix: adapter?.matrix ?? [] },
      };
    },
  };
}

interface Trial {
  readonly deno?: AdapterDescription;
  readonly dawn: () => Promise<readonly AdapterDescription[]>;
  readonly choice?: GpuChoice;
}

async function choose({ deno = { ...UNITS, matrix: [] }, dawn, choice = "auto" }: Trial) {
  const providers: Providers = { deno: faked("deno", () => Promise.resolve([deno])), dawn: faked("dawn", dawn) };
  const lines: string[] = [];
  const gpu = await openGpu({ choice, log: (line) => lines.push(line), providers, patienceMs: 50 });
  const { provider } = gpu.info;
  await gpu.close();
  assert.equal(lines.length, 1);
  return { provider, line: lines[0] ?? "" };
}

const mustNotLoad = () => Promise.reject(new Error("Dawn was loaded"));

Deno.test("openGpu() does not load Dawn on a software adapter, nor when Deno's own is asked for", async () => {
  const software = { ...UNITS, software: true, matrix: [] };
  assert.deepEqual(await choose({ deno: software, dawn: mustNotLoad }), {
    provider: "deno",
    line: "GPU: Deno's own WebGPU on card, no matrix units",
  });
  assert.equal((await choose({ dawn: mustNotLoad, choice: "deno" })).provider, "deno");
});

const REASONS: readonly (readonly [name: string, dawn: Trial["dawn"], reason: RegExp])[] = [
  ["finds nothing", () => Promise.resolve([]), /not Dawn: it found no adapter/],
  ["finds a CPU", () => Promise.resolve([{ ...UNITS, software: true }]), /computes on the CPU/],
  ["finds no matrix units", () => Promise.resolve([{ ...UNITS, matrix: [] }]), /card has no matrix units/],
  ["finds faulty ones", () => Promise.resolve([UNITS]), /of card compute wrong: 16×16×16 f16→f32/],
  ["is late", () => new Promise(() => {}), /did not load within 0\.05 s; a download goes on/],
  [
    "cannot be loaded",
    () => Promise.reject(new GpuError("provider_unavailable", "Cannot load Dawn: no network")),
    /not Dawn: Cannot load Dawn: no network/,
  ],
];

for (const [name, dawn, reason] of REASONS) {
  Deno.test(`openGpu() goes on with Deno's own, and says why once, when Dawn ${name}`, async () => {
    const { provider, line } = await choose({ dawn });
    assert.equal(provider, "deno");
    assert.match(line, reason);
  });
}

Deno.test("openGpu() does not hide a failure of Dawn that was asked for, nor one of our own", async () => {
  const unavailable = new GpuError("provider_unavailable", "Cannot load Dawn");
  const failing: Providers = {
    deno: DENO,
    dawn: { name: "dawn", adapters: mustNotLoad, open: () => Promise.reject(unavailable) },
  };
  await assert.rejects(openGpu({ choice: "dawn", providers: failing }), unavailable);
  await assert.rejects(choose({ dawn: mustNotLoad }), /Dawn was loaded/);
});
