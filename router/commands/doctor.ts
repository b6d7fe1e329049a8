/**
 * `doctor`: what this machine's GPU is, what it can do, and whether it computes.
 * Knows the device; `doctor_model.ts` reads models.
 */

import { at } from "../../kernels/at.ts";
import { type GpuChoice, openGpu } from "../../kernels/choose_provider.ts";
import type { Gpu, GpuInfo } from "../../kernels/gpu.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { Command, FlagValues } from "../command.ts";
import type { Terminal } from "../terminal.ts";
import { ensureVulkanDriver } from "../host/vulkan_driver.ts";
import { GPU_FLAG } from "../host/worker_config.ts";
import { QUANTIZE_FLAG, withLocalModel } from "../model_choice.ts";
import { describeModel, diagnoseModel, type ModelDiagnosis } from "./doctor_model.ts";
import { describeProvider, diagnoseProviders, type ProviderDiagnosis } from "./doctor_providers.ts";
import { diagnosePlaces, holdMemory, type PlaceDiagnosis } from "./doctor_workers.ts";

const flags = {
  model: {
    kind: "text",
    value: "MODEL",
    help: "also describe a model, named as for serve: its memory, and what it lacks",
  },
  ...QUANTIZE_FLAG,
  workers: {
    kind: "integer",
    min: 1,
    max: 64,
    or: "auto",
    help: "show which GPU each of N workers would get, and prove it",
  },
  groups: {
    kind: "integer",
    min: 1,
    max: 64,
    help: "groups of that many workers each (default: 1)",
  },
  shareGpu: { kind: "switch", help: "let several workers share one GPU" },
  holdMib: {
    kind: "integer",
    min: 1,
    max: 65536,
    help: "only hold N MiB of GPU memory until stdin ends; used by --workers itself",
  },
  ...GPU_FLAG,
  json: { kind: "switch", help: "print one JSON object" },
} as const;

/** What `doctor` found; its `--json` output. */
interface Diagnosis {
  readonly deno: string;
  readonly platform: string;
  /** Both ways to the GPU. */
  readonly providers: readonly ProviderDiagnosis[];
  /** Through the one that was chosen. */
  readonly gpu: GpuInfo;
  /** Median of a synchronous read-back of 16 bytes, submit included. */
  readonly readBackMs: number;
  /** From the first line of the test kernel to its result: compilation included. */
  readonly kernelMs: number;
  /** Whether the test kernel computed what it should. */
  readonly kernelCorrect: boolean;
  /** Only when asked for. */
  readonly workers?: readonly PlaceDiagnosis[];
  readonly model?: ModelDiagnosis;
}

export const command: Command<typeof flags> = {
  summary: "What this machine's GPU is and can do, with a tiny kernel run and checked",
  flags,
  async run(given: FlagValues<typeof flags>, terminal: Terminal): Promise<number> {
    const values = await withLocalModel(given, (fraction) => terminal.progress("Fetching the model", fraction));
    await ensureVulkanDriver((line) => terminal.error(line));
    if (values.holdMib !== undefined) {
      await holdMemory(values.holdMib, (line) => terminal.line(line));
      return 0;
    }
    const { groups = 1, shareGpu } = values;
    const workers = values.workers === undefined && values.groups === undefined
      ? {}
      : { workers: await diagnosePlaces({ groups, workers: values.workers ?? 1, shareGpu }) };
    const model = values.model === undefined ? {} : { model: await diagnoseModel(values.model, values.quantize) };
    const diagnosis: Diagnosis = { ...await diagnose(values.gpu), ...workers, ...model };
    if (values.json) terminal.line(JSON.stringify(diagnosis, undefined, 2));
    else for (const line of report(diagnosis)) terminal.line(line);
    const isContradicted = diagnosis.workers?.some(({ proof }) => proof === "contradicted") ?? false;
    return diagnosis.kernelCorrect && !isContradicted ? 0 : 1;
  },
};

async function diagnose(choice: GpuChoice): Promise<Diagnosis> {
  const providers = await diagnoseProviders(choice);
  const gpu = await openGpu({ choice });
  try {
    const started = performance.now();
    const kernelCorrect = await squaresAreRight(gpu);
    return {
      deno: Deno.version.deno,
      platform: `${Deno.build.os} ${Deno.build.arch}`,
      providers,
      gpu: gpu.info,
      kernelMs: performance.now() - started,
      readBackMs: await medianReadBackMs(gpu),
      kernelCorrect,
    };
  } finally {
    await gpu.close();
  }
}

const READ_BACKS = 51;

async function medianReadBackMs(gpu: Gpu): Promise<number> {
  const tensor = gpu.tensor("doctor", "u32", [4]);
  const times: number[] = [];
  for (let i = 0; i < READ_BACKS; i++) {
    const started = performance.now();
    await gpu.read([{ tensor }]);
    times.push(performance.now() - started);
  }
  gpu.free(tensor);
  return at(times.sort((a, b) => a - b), READ_BACKS >> 1);
}

const ELEMENTS = 1000;
const WORKGROUP = 64;

// Not a multiple of the workgroup: the bounds check is part of the test.
const SQUARES = `
@group(0) @binding(0) var<storage, read_write> squares: array<u32>;
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < ${ELEMENTS}u) { squares[id.x] = id.x * id.x; }
}`;

async function squaresAreRight(gpu: Gpu): Promise<boolean> {
  const squares = gpu.tensor("doctor squares", "u32", [ELEMENTS]);
  dispatchSquares(gpu, squares);
  const computed = await gpu.readU32({ tensor: squares, byteLength: ELEMENTS * 4 });
  gpu.free(squares);
  return computed.every((value, i) => value === i * i);
}

function dispatchSquares({ device }: Gpu, squares: Tensor): void {
  const pipeline = device.createComputePipeline({
    layout: "auto",
    compute: { module: device.createShaderModule({ label: "doctor", code: SQUARES }) },
  });
  const bindGroup = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [{ binding: 0, resource: { buffer: squares.buffer } }],
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bindGroup);
  pass.dispatchWorkgroups(Math.ceil(ELEMENTS / WORKGROUP));
  pass.end();
  device.queue.submit([encoder.finish()]);
}

function report(diagnosis: Diagnosis): readonly string[] {
  const { gpu } = diagnosis;
  const rows: readonly (readonly [string, string])[] = [
    ["Deno", `${diagnosis.deno} on ${diagnosis.platform}`],
    ["Adapter", `${gpu.adapter}${gpu.vendor === "" ? "" : ` (vendor ${gpu.vendor})`}`],
    ["Through", gpu.provider === "dawn" ? "Dawn" : "Deno's own WebGPU"],
    ["Kind", gpu.software ? "software: computes on the CPU, fine for trying out, slow for work" : "hardware"],
    ["Subgroups", yesNo(gpu.subgroups)],
    ["shader-f16", yesNo(gpu.shaderF16)],
    ["timestamp-query", yesNo(gpu.timestamps)],
    ["Largest binding", mebibytes(gpu.maxBindingBytes)],
    ["Largest buffer", mebibytes(gpu.maxBufferBytes)],
    ["Workgroup", `${gpu.maxWorkgroupBytes} bytes of memory, ${gpu.maxInvocations} invocations`],
    ["Read-back", `${diagnosis.readBackMs.toFixed(3)} ms, median (${gpu.fastReadBack ? "fast path" : "awaited map"})`],
    ["Test kernel", `${diagnosis.kernelCorrect ? "correct" : "WRONG RESULT"}, ${diagnosis.kernelMs.toFixed(1)} ms`],
  ];
  const workers = (diagnosis.workers ?? []).map(({ group, worker, place, adapter, proof, evidence }) =>
    [
      group === undefined ? `Worker ${worker}` : `Worker ${group}.${worker}`,
      `${adapter}, ${place}; ${proof}: ${evidence}`,
    ] as const
  );
  const providers = diagnosis.providers.map((found) =>
    [found.provider === "dawn" ? "Dawn" : "Deno's own", describeProvider(found)] as const
  );
  const model = diagnosis.model === undefined ? [] : describeModel(diagnosis.model);
  return [...rows, ...providers, ...workers, ...model].map(([name, value]) => `${name.padEnd(16)} ${value}`);
}

function yesNo(supported: boolean): string {
  return supported ? "yes" : "no";
}

function mebibytes(bytes: number): string {
  return `${Math.floor(bytes / 2 ** 20).toLocaleString("en")} MiB`;
}
