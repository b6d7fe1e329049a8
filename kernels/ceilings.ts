/**
 * What an adapter can do at most, measured: bytes read a second, and multiplications with additions a second. Every share
 * that a benchmark prints is of these, from the same run, so that clocks and drivers cancel out.
 */

import type { Commands, KernelSpec } from "./pipeline.ts";
import type { Tensor } from "./tensor.ts";
import { PassTimer } from "./timestamps.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, unroll, writes } from "./wgsl.ts";

/** The ceilings of one adapter. */
export interface Ceilings {
  /** Streaming reads of a buffer larger than any cache, in GB/s. */
  readonly readGigabytesPerSecond: number;
  /** vec4<f32> fused multiply-adds in registers, two operations each, in TFLOP/s. */
  readonly fmaTeraflopPerSecond: number;
}

const THREADS = 256;
/** Vectors that a thread reads, and accumulators that it multiplies into. */
const VECTORS = 16;
const ACCUMULATORS = 8;
/** Multiply-adds of every accumulator between two checks of the loop. */
const UNROLLED = 8;
/** An idle card runs at a fraction of its clock: it is loaded for so long before the clock counts. */
const WARM_UP_MS = 500;
const ROUNDS = 5;

/** Bytes, workgroups and rounds of the loop: on a CPU a second's work, on a GPU several milliseconds a round. */
const SIZES = {
  software: { bytes: 2 ** 26, groups: 64, loops: 16, warmUpMs: 0 },
  hardware: { bytes: 2 ** 30, groups: 8192, loops: 256, warmUpMs: WARM_UP_MS },
} as const;

/**
 * Measures both, after the card has been loaded for half a second: the best of five rounds each.
 * @throws {GpuError} `invalid_shape` without timestamps; `out_of_gpu_memory` without a free GiB (64 MiB in software)
 */
export async function measureCeilings(commands: Commands): Promise<Ceilings> {
  const { gpu } = commands;
  const size = SIZES[gpu.info.software ? "software" : "hardware"];
  const bytes = Math.min(size.bytes, gpu.info.maxBindingBytes - gpu.info.maxBindingBytes % (THREADS * VECTORS * 16));
  const source = gpu.tensor("ceiling source", "f32", [bytes / 4]);
  const sink = gpu.tensor("ceiling sink", "f32", [4]);
  try {
    const fma = () => multiplyAdd(commands, { source, sink, ...size });
    const read = () => readAll(commands, { source, sink, bytes });
    await warmClocks(commands, fma, size.warmUpMs);
    const flop = size.groups * THREADS * size.loops * ACCUMULATORS * UNROLLED * 4 * 2;
    return {
      fmaTeraflopPerSecond: flop / await bestNs(commands, fma) / 1e3,
      readGigabytesPerSecond: bytes / await bestNs(commands, read),
    };
  } finally {
    gpu.free(source);
    gpu.free(sink);
  }
}

/** Repeats recorded work for so long that an idle card reaches its clock. */
export async function warmClocks(commands: Commands, record: () => void, forMs = WARM_UP_MS): Promise<void> {
  const start = performance.now();
  while (performance.now() - start < forMs) {
    for (let i = 0; i < 4; i++) record();
    commands.submit();
    await commands.gpu.read([]);
  }
}

/** Of the recorded dispatches together; the first round compiles. */
async function bestNs(commands: Commands, record: () => void): Promise<number> {
  const timer = new PassTimer(commands.gpu, "dispatch");
  commands.observe(timer);
  try {
    let best = Infinity;
    for (let i = 0; i <= ROUNDS; i++) {
      record();
      commands.submit();
      const passes = await timer.read();
      const ns = passes.reduce((sum, { startNs, endNs }) => sum + endNs - startNs, 0);
      if (i > 0) best = Math.min(best, ns);
    }
    return best;
  } finally {
    commands.observe(undefined);
    timer.close();
  }
}

function readAll(commands: Commands, { source, sink, bytes }: { source: Tensor; sink: Tensor; bytes: number }): void {
  const groups = bytes / (THREADS * VECTORS * 16);
  commands.dispatch(commands.kernel("streaming_read", readSpec), {
    tensors: [source, sink],
    params: { groups },
    groups: spread(groups),
  });
}

function multiplyAdd(
  commands: Commands,
  { source, sink, groups, loops }: { source: Tensor; sink: Tensor; groups: number; loops: number },
): void {
  commands.dispatch(commands.kernel("fma_peak", fmaSpec), {
    tensors: [source, sink],
    params: { loops },
    groups: spread(groups),
  });
}

const BINDINGS = [reads("source", "array<vec4<f32>>"), writes("sink", "array<vec4<f32>>")];

/** Writes only what cannot be: the sums must be computed, but nothing competes with the reads. */
function readSpec(): KernelSpec {
  return {
    bindings: BINDINGS,
    params: [["groups", "u32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let g = ${GROUP_INDEX};
        if (g >= params.groups) { return; }
        let first = g * ${THREADS * VECTORS}u + t;
        ${unroll(VECTORS, (i) => `let v${i} = source[first + ${i * THREADS}u];`)}
        let sum = ${Array.from({ length: VECTORS }, (_, i) => `v${i}`).join(" + ")};
        if (sum.x == 1234.5) { sink[0] = sum; }
      }`,
  };
}

function fmaSpec(): KernelSpec {
  const multiply = unroll(UNROLLED, () => unroll(ACCUMULATORS, (a) => `s${a} = fma(s${a}, factor, offset);`));
  return {
    bindings: BINDINGS,
    params: [["loops", "u32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let factor = source[t] + vec4<f32>(0.999);
        let offset = source[t] + vec4<f32>(0.001);
        ${unroll(ACCUMULATORS, (a) => `var s${a} = vec4<f32>(f32(t + ${a}u) + f32(${GROUP_INDEX}));`)}
        for (var i = 0u; i < params.loops; i++) {
          ${multiply}
        }
        let sum = ${Array.from({ length: ACCUMULATORS }, (_, a) => `s${a}`).join(" + ")};
        if (sum.x == 1234.5) { sink[0] = sum; }
      }`,
  };
}
