/**
 * `deno task bench:kernels [--json FILE] [--only products|quantized|fused|attention] [--cases REGEXP]`: the kernels over the timed cases of
 * their tables, on the GPU's clock, beside the ceilings of the same run. Prints Markdown.
 */

import { parseArgs } from "node:util";
import { measureCeilings } from "../../kernels/ceilings.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { Commands } from "../../kernels/pipeline.ts";
import { testProvider } from "../support/test_provider.ts";
import { processTerminal } from "../../router/terminal.ts";
import { benchAttention } from "./attention/attention_bench.ts";
import { benchFused } from "./fused_bench.ts";
import type { KernelFigures } from "./kernel_timing.ts";
import { benchProducts } from "./products_bench.ts";
import { benchQuantized } from "./quantized_bench.ts";

const BENCHES = {
  products: benchProducts,
  quantized: benchQuantized,
  fused: benchFused,
  attention: benchAttention,
} as const;

function figure(value: number | undefined): string {
  return value === undefined ? "–" : `${Number(value.toPrecision(3))}`;
}

function row({ name, ms, gigabytesPerSecond, teraflopPerSecond, ceilingShare }: KernelFigures): string {
  const share = ceilingShare === undefined ? "–" : `${(ceilingShare * 100).toFixed(0)} %`;
  return `| ${[name, ms.toFixed(4), figure(gigabytesPerSecond), figure(teraflopPerSecond), share].join(" | ")} |`;
}

const { values: { json, only, cases } } = parseArgs({
  options: {
    json: { type: "string" },
    only: { type: "string" },
    cases: { type: "string", default: "" },
  },
});
const wanted = new RegExp(cases);
if (only !== undefined && !(only in BENCHES)) {
  throw new RangeError(`Cannot bench ${only}: must be one of ${Object.keys(BENCHES).join(", ")}`);
}
const terminal = processTerminal();
const gpu = await Gpu.open(testProvider());
try {
  const commands = new Commands(gpu);
  const ceilings = await measureCeilings(commands);
  const { readGigabytesPerSecond: read, fmaTeraflopPerSecond: fma } = ceilings;
  terminal.line(
    `${gpu.info.adapter}, Deno ${Deno.version.deno}: reads ${figure(read)} GB/s, multiply-adds ${
      figure(fma)
    } TFLOP/s\n`,
  );
  terminal.line("| kernel | ms | GB/s | TFLOP/s | of ceiling |\n| --- | --- | --- | --- | --- |");
  const kernels: KernelFigures[] = [];
  for (const [name, bench] of Object.entries(BENCHES)) {
    if (only !== undefined && only !== name) continue;
    const figures = await bench({ commands, ceilings, isWanted: (name) => wanted.test(name) });
    for (const one of figures) terminal.line(row(one));
    kernels.push(...figures);
  }
  if (json !== undefined) {
    const date = new Date().toISOString().slice(0, 10);
    await Deno.writeTextFile(
      json,
      JSON.stringify({ date, adapter: gpu.info.adapter, ceilings, kernels }, undefined, 2) + "\n",
    );
  }
} finally {
  await gpu.close();
}
