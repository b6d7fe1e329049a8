/**
 * `deno task bench:recording [--layers N] [--rounds N] [--software]`: what the host pays to record a decode step, whatever the GPU
 * does: programs with the dispatches and bindings of a layer, whose kernels compute nothing, and single calls, each alone in a loop.
 * `TIDEPOOL_GPU` names the provider; `--software` runs on the software driver of `deno task test:matrix`, which Dawn accepts.
 */

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { at } from "../../kernels/at.ts";
import { Gpu } from "../../kernels/gpu.ts";
import { Commands, type KernelSpec } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { reads, writes } from "../../kernels/wgsl.ts";
import { processTerminal, type Terminal } from "../../router/terminal.ts";
import { matrixDriver } from "../matrix/driver.ts";
import { testProvider } from "../support/test_provider.ts";

/** Tensors of each dispatch of a decode layer: norm, qkv with its heads, attention, merge, output, norm, gate and up, down. */
const LAYER_TENSORS = [3, 8, 9, 5, 3, 3, 3, 3] as const;

/** Weights, keys and values of a layer; all layers share the rest. */
const LAYER_BUFFERS = 8;

/** Of a loop over one call. */
const CALLS = 320;

/** A kernel of so many tensors that computes nothing. */
function idle(tensors: number): KernelSpec {
  const inputs = Array.from({ length: tensors - 1 }, (_, i) => reads(`in${i}`, "array<vec4<f32>>"));
  return {
    bindings: [...inputs, writes("out", "array<vec4<f32>>")],
    params: [["rows", "u32"]],
    source: "@compute @workgroup_size(1) fn main() {}",
  };
}

/** Median and tenth percentile of what rounds took, in milliseconds. */
interface Times {
  readonly medianMs: number;
  readonly tenthMs: number;
}

function timesOf(values: readonly number[]): Times {
  const sorted = [...values].sort((a, b) => a - b);
  return { medianMs: at(sorted, sorted.length >> 1), tenthMs: at(sorted, Math.floor(sorted.length / 10)) };
}

/** Replays and submits a program of so many layers. */
async function measureSteps(
  gpu: Gpu,
  { layers, rounds, fixesOffsets }: {
    readonly layers: number;
    readonly rounds: number;
    readonly fixesOffsets: boolean;
  },
): Promise<{ readonly dispatches: number; readonly record: Times; readonly submit: Times }> {
  const commands = new Commands(gpu, { fixesOffsets });
  const tensor = () => gpu.tensor("recording", "f32", [64]);
  const shared = Array.from({ length: LAYER_BUFFERS }, tensor);
  const own = Array.from({ length: layers }, () => Array.from({ length: LAYER_BUFFERS }, tensor));
  const program = await commands.program("step", () => {
    for (const buffers of own) recordLayer(commands, [...shared, ...buffers]);
  });
  const [record, submit]: [number[], number[]] = [[], []];
  // The first half is for the host's code to settle.
  for (let round = 0; round < 2 * rounds; round++) {
    const start = performance.now();
    commands.replay(program);
    const recorded = performance.now();
    commands.submit();
    record.push(recorded - start);
    submit.push(performance.now() - recorded);
    await gpu.settle();
  }
  for (const used of [...shared, ...own.flat()]) gpu.free(used);
  const settled = (values: readonly number[]) => timesOf(values.slice(rounds));
  return { dispatches: program.dispatches, record: settled(record), submit: settled(submit) };
}

function recordLayer(commands: Commands, buffers: readonly Tensor[]): void {
  for (const [i, count] of LAYER_TENSORS.entries()) {
    const tensors = Array.from({ length: count }, (_, j) => at(buffers, (3 * i + j) % buffers.length));
    const kernel = commands.kernel(`idle ${i}`, () => idle(count));
    commands.dispatch(kernel, { tensors, params: { rows: i }, groups: [1, 1, 1] });
  }
}

/** A pipeline, and a bind group for it of four tensors and an offset into parameters: given with each dispatch, or its own. */
function boundPipeline(gpu: Gpu, { hasDynamicOffset }: { readonly hasDynamicOffset: boolean }) {
  const { device } = gpu;
  const visibility = GPUShaderStage.COMPUTE;
  const places = [0, 1, 2, 3, 4];
  const isTensor = (binding: number) => binding < 4;
  const layout = device.createBindGroupLayout({
    entries: places.map((binding) => ({
      binding,
      visibility,
      buffer: isTensor(binding) ? { type: "read-only-storage" } : { type: "uniform", hasDynamicOffset },
    })),
  });
  const pipeline = device.createComputePipeline({
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module: device.createShaderModule({ code: idle(1).source }), entryPoint: "main" },
  });
  const buffer = gpu.buffer("recording", 512, GPUBufferUsage.UNIFORM | GPUBufferUsage.STORAGE);
  const entries = places.map((binding) => ({ binding, resource: { buffer, size: 256 } }));
  return { pipeline, group: device.createBindGroup({ layout, entries }) };
}

/** Times single calls, each alone in a loop. @returns tenth percentiles in microseconds, by name */
function measureCalls(gpu: Gpu, rounds: number): ReadonlyMap<string, number> {
  const given = boundPipeline(gpu, { hasDynamicOffset: true });
  const fixed = boundPipeline(gpu, { hasDynamicOffset: false });
  const [list, typed] = [[256], Uint32Array.of(256)];
  const { offsetsAsList } = gpu.traits;
  const calls: Readonly<Record<string, (pass: GPUComputePassEncoder) => void>> = {
    "setPipeline": (pass) => pass.setPipeline(fixed.pipeline),
    "setBindGroup with an offset": (pass) =>
      offsetsAsList ? pass.setBindGroup(0, given.group, list) : pass.setBindGroup(0, given.group, typed, 0, 1),
    "setBindGroup that has it": (pass) => pass.setBindGroup(0, fixed.group),
    "dispatchWorkgroups of 3 numbers": (pass) => pass.dispatchWorkgroups(1, 1, 1),
    "dispatchWorkgroups of 1 number": (pass) => pass.dispatchWorkgroups(1),
  };
  const names = Object.entries(calls);
  return new Map(names.map(([name, call]) => [name, microsecondsOf(gpu, { ...fixed, call, rounds })]));
}

function microsecondsOf(
  { device }: Gpu,
  { pipeline, group, call, rounds }: ReturnType<typeof boundPipeline> & {
    readonly call: (pass: GPUComputePassEncoder) => void;
    readonly rounds: number;
  },
): number {
  const times = Array.from({ length: 2 * rounds }, () => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    const start = performance.now();
    for (let i = 0; i < CALLS; i++) call(pass);
    const tookMs = performance.now() - start;
    pass.end();
    encoder.finish();
    return tookMs;
  });
  return 1000 * timesOf(times.slice(rounds)).tenthMs / CALLS;
}

async function run(terminal: Terminal, { layers, rounds }: { layers: number; rounds: number }): Promise<void> {
  const gpu = await Gpu.open(testProvider());
  try {
    terminal.line(`${gpu.info.adapter} (${gpu.info.provider}), ${layers} layers, ${rounds} rounds`);
    for (const [name, us] of measureCalls(gpu, rounds)) terminal.line(`${name.padEnd(36)}${us.toFixed(2)} µs`);
    for (const fixesOffsets of [false, true]) {
      const { dispatches, record, submit } = await measureSteps(gpu, { layers, rounds, fixesOffsets });
      const shown = ({ medianMs, tenthMs }: Times) =>
        `${medianMs.toFixed(3)} ms (tenth percentile ${tenthMs.toFixed(3)})`;
      terminal.line(`${dispatches} dispatches, offsets ${fixesOffsets ? "in groups" : "given"}:`);
      terminal.line(`  record ${shown(record)}, submit ${shown(submit)}`);
    }
    await gpu.check();
  } finally {
    await gpu.close();
  }
}

/** The same on the software driver: it needs a dynamic loader of its own. */
async function runOnMatrixDriver(terminal: Terminal, given: readonly string[]): Promise<number> {
  const { program, args, env } = await matrixDriver((line) => terminal.line(line));
  const child = new Deno.Command(program, {
    args: [...args, "run", "-A", fileURLToPath(import.meta.url), ...given],
    env: { TIDEPOOL_GPU: "dawn", ...env },
  }).spawn();
  return (await child.status).code;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      layers: { type: "string", default: "32" },
      rounds: { type: "string", default: "300" },
      software: { type: "boolean", default: false },
    },
  });
  const { layers, rounds } = values;
  if (values.software) {
    Deno.exit(await runOnMatrixDriver(processTerminal(), ["--layers", layers, "--rounds", rounds]));
  }
  await run(processTerminal(), { layers: Number(layers), rounds: Number(rounds) });
}
