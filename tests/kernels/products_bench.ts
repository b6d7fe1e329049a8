/**
 * Speed of both matrix products, run by hand: `deno run -A tests/kernels/products_bench.ts`. Prints one line for each
 * shape and plan, the plan in use first. Shapes of tide-10m on software adapters, of Llama-3-8B besides on real GPUs.
 */

import { Gpu } from "../../kernels/gpu.ts";
import { matmul, type MatmulPlan, planMatmul } from "../../kernels/products/matmul.ts";
import { matvec, type MatvecPlan, planMatvec } from "../../kernels/products/matvec.ts";
import { Commands } from "../../kernels/pipeline.ts";
import { randomWeight } from "../../kernels/products/random_weight.ts";
import { createWeight, freeWeight, type Weight } from "../../kernels/products/weight.ts";

interface Shape {
  readonly rows: number;
  readonly weightRows: number;
  readonly cols: number;
}

/** Weights are rotated through, so that no cache holds the next one. */
const ROTATED_BYTES = 2 ** 28;
const ROUNDS = 5;

const SMALL_WEIGHTS = [[768, 256], [1024, 512], [2048, 768]] as const;
const LLAMA_8B_WEIGHTS = [[6144, 4096], [4096, 4096], [28672, 4096], [4096, 14336], [128256, 4096]] as const;

const encoder = new TextEncoder();

function print(line: string): void {
  Deno.stdout.writeSync(encoder.encode(line + "\n"));
}

/** Milliseconds of one run, the best of some rounds, each long enough to drown what a submit costs. */
async function timeOf(commands: Commands, record: (i: number) => void): Promise<number> {
  const round = async (repeats: number) => {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) record(i);
    commands.submit();
    await commands.gpu.settle();
    return (performance.now() - start) / repeats;
  };
  await round(1);
  const repeats = Math.max(1, Math.min(500, Math.round(40 / await round(3))));
  let best = Infinity;
  for (let i = 0; i < ROUNDS; i++) best = Math.min(best, await round(repeats));
  return best;
}

function report(name: string, { rows, weightRows, cols }: Shape, milliseconds: number): void {
  const gflops = 2 * rows * weightRows * cols / milliseconds / 1e6;
  const gigabytes = 2 * weightRows * cols / milliseconds / 1e6;
  const size = `${rows} × ${weightRows} × ${cols}`.padEnd(22);
  print(
    `${name.padEnd(26)} ${size} ${milliseconds.toFixed(3).padStart(9)} ms ${gflops.toFixed(1).padStart(9)} GFLOP/s ` +
      `${gigabytes.toFixed(2).padStart(9)} GB/s of weights`,
  );
}

async function bench(commands: Commands, shape: Shape, run: (weight: Weight, i: number) => void): Promise<number> {
  const { weightRows: rows, cols } = shape;
  const copies = commands.gpu.info.software ? 1 : Math.max(1, Math.ceil(ROTATED_BYTES / (rows * cols * 2)));
  const weights = Array.from(
    { length: copies },
    (_, i) => createWeight(commands.gpu, `copy ${i}`, { rows, cols, dtype: "f16" }),
  );
  weights.forEach((weight, seed) => randomWeight(commands, weight, { seed, deviation: 0.02 }));
  const milliseconds = await timeOf(commands, (i) => {
    const weight = weights[i % copies];
    if (weight !== undefined) run(weight, i);
  });
  for (const weight of weights) freeWeight(commands.gpu, weight);
  return milliseconds;
}

async function benchMatvec(commands: Commands, shape: Shape, plans: readonly MatvecPlan[]): Promise<void> {
  const { rows, weightRows, cols } = shape;
  const x = commands.gpu.tensor("x", "f32", [rows, cols]);
  const y = commands.gpu.tensor("y", "f32", [rows, weightRows]);
  for (const plan of [planMatvec(commands.gpu.info, cols), ...plans]) {
    const milliseconds = await bench(commands, shape, (weight) => matvec(commands, { weight, x, y, rows }, plan));
    const name = plan.kind === "lanes" ? "lanes" : `teams of ${plan.threads} for ${plan.outputs}`;
    report(`matvec ${name}`, shape, milliseconds);
  }
  commands.gpu.free(x);
  commands.gpu.free(y);
}

async function benchMatmul(commands: Commands, shape: Shape, plans: readonly MatmulPlan[]): Promise<void> {
  const { rows, weightRows, cols } = shape;
  const x = commands.gpu.tensor("x", "f32", [rows, cols]);
  const y = commands.gpu.tensor("y", "f32", [rows, weightRows]);
  for (const plan of [planMatmul(commands.gpu.info, rows, weightRows), ...plans]) {
    const milliseconds = await bench(commands, shape, (weight) => matmul(commands, { weight, x, y, rows }, plan));
    report(`matmul ${plan.kind === "lanes" ? "lanes" : `tiles of ${plan.side}`}`, shape, milliseconds);
  }
  commands.gpu.free(x);
  commands.gpu.free(y);
}

const gpu = await Gpu.open();
const commands = new Commands(gpu);
print(`${gpu.info.adapter}, Deno ${Deno.version.deno}`);

const teams: MatvecPlan[] = gpu.info.software
  ? []
  : [32, 64, 128, 256].flatMap((threads) => [4, 8].map((outputs) => ({ kind: "team" as const, threads, outputs })));
const tiles: MatmulPlan[] = gpu.info.software ? [] : [{ kind: "tiles", side: 64 }, { kind: "tiles", side: 128 }];
const weights = gpu.info.software ? SMALL_WEIGHTS : [...SMALL_WEIGHTS, ...LLAMA_8B_WEIGHTS];
for (const [weightRows, cols] of weights) {
  for (const rows of [1, 2, 4, 8, 16]) await benchMatvec(commands, { rows, weightRows, cols }, rows > 2 ? [] : teams);
}
for (const [weightRows, cols] of weights) {
  await benchMatmul(commands, { rows: 256, weightRows, cols }, tiles);
}
await benchMatmul(commands, { rows: 512, weightRows: 1024, cols: 1024 }, tiles);
if (!gpu.info.software) await benchMatmul(commands, { rows: 1024, weightRows: 14336, cols: 4096 }, tiles);
await gpu.close();
