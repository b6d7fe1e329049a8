/**
 * Measures which size of tile multiplies each weight of a model fastest, and notes it for the products to come. Knows
 * products and a clock; knows nothing of models or files.
 */

import type { Commands } from "../pipeline.ts";
import { takeRows } from "../rows.ts";
import { Scratch } from "../scratch.ts";
import type { Weight } from "../weights/weight.ts";
import { matmul, type MatmulAdapter, matmulForm, type MatmulPlan, planMatmul } from "./matmul.ts";
import type { Product } from "./product.ts";
import { choiceKey, type TileSize, TUNED_ROWS } from "./tile_choice.ts";

/** Long enough that a wait for the GPU, about 0.1 ms, weighs little. */
const ROUND_MS = 20;
const MAX_REPETITIONS = 64;

/** A size other than the rule's must be this much faster: clocks waver. */
const GAIN = 1.03;

/** Milliseconds of a product with a plan, warm. */
export type TimeProduct = (commands: Commands, product: Product, plan: MatmulPlan) => Promise<number>;

/** What is chosen for, and how it is measured. */
export interface Tuning {
  /** @default the one of the commands */
  readonly adapter?: MatmulAdapter;
  /** @default the wall clock around repetitions */
  readonly time?: TimeProduct;
}

/**
 * Chooses tiles for the weights that have none yet; those of one shape and format share a choice. Does nothing on adapters
 * that have no tiles.
 * @returns how many choices were measured
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function tuneTiles(
  commands: Commands,
  weights: readonly Weight[],
  { adapter = commands.gpu.info, time = timeProduct }: Tuning = {},
): Promise<number> {
  const scratch = new Scratch(commands);
  let measured = 0;
  try {
    for (const weight of weights) {
      for (const rows of TUNED_ROWS) {
        const key = choiceKey(rows, weight);
        if (commands.tiles.entries[key] !== undefined) continue;
        const size = await fasterSize(commands, { weight, rows, scratch }, { adapter, time });
        if (size === undefined) continue;
        commands.tiles.set(key, size);
        measured++;
      }
    }
  } finally {
    scratch.close();
  }
  return measured;
}

/** Dispatches what `tuneTiles` would time, once: for kernels that are compiled ahead. */
export function recordTiles(commands: Commands, weights: readonly Weight[]): void {
  const scratch = new Scratch(commands);
  try {
    for (const weight of weights) {
      for (const rows of TUNED_ROWS) {
        if (commands.tiles.entries[choiceKey(rows, weight)] !== undefined) continue;
        const { byRule, small, large } = plansOf(commands.gpu.info, { weight, rows });
        if (isSame(small, large)) continue;
        const product = productOf({ weight, rows, scratch }, byRule);
        for (const plan of [small, large]) matmul(commands, product, plan);
      }
    }
  } finally {
    scratch.close();
  }
}

/** Undefined: the adapter, or the weight, has no choice of tiles. */
async function fasterSize(
  commands: Commands,
  { weight, rows, scratch }: Pick<Product, "weight" | "rows" | "scratch">,
  { adapter, time }: Required<Tuning>,
): Promise<TileSize | undefined> {
  const plans = plansOf(adapter, { weight, rows });
  if (isSame(plans.small, plans.large)) return undefined;
  const product = productOf({ weight, rows, scratch }, plans.byRule);
  const byRule = isSame(plans.byRule, plans.large) ? "large" : "small";
  const other = byRule === "large" ? "small" : "large";
  const ruleMs = await time(commands, product, plans[byRule]);
  return await time(commands, product, plans[other]) * GAIN < ruleMs ? other : byRule;
}

function plansOf(
  adapter: MatmulAdapter,
  { weight, rows }: Pick<Product, "weight" | "rows">,
): Readonly<Record<TileSize | "byRule", MatmulPlan>> {
  const planOf = (size?: TileSize) => planMatmul(adapter, rows, weight, { size });
  return { byRule: planOf(), small: planOf("small"), large: planOf("large") };
}

function isSame(one: MatmulPlan, other: MatmulPlan): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function productOf({ weight, rows, scratch }: Pick<Product, "weight" | "rows" | "scratch">, plan: MatmulPlan): Product {
  return {
    weight,
    rows,
    scratch,
    x: takeRows(scratch, "rows to tune with", { form: matmulForm(plan), rows, cols: weight.cols }),
    y: scratch.take("results of tuning", "f32", [rows, weight.rows]),
  };
}

async function timeProduct(commands: Commands, product: Product, plan: MatmulPlan): Promise<number> {
  const run = async (repetitions: number) => {
    const start = performance.now();
    for (let i = 0; i < repetitions; i++) matmul(commands, product, plan);
    commands.submit();
    await commands.gpu.settle();
    return performance.now() - start;
  };
  // Compiles, and wakes the clocks.
  await run(1);
  let repetitions = 1;
  let ms = await run(repetitions);
  while (ms < ROUND_MS && repetitions < MAX_REPETITIONS) {
    repetitions *= 2;
    ms = await run(repetitions);
  }
  return ms / repetitions;
}
