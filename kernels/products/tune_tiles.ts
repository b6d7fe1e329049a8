/**
 * Measures which size of tile multiplies each weight of a model fastest, and notes it for the products to come. Knows
 * products and a clock; knows nothing of models or files.
 */

import type { Commands } from "../pipeline.ts";
import { takeRows } from "../rows.ts";
import { Scratch } from "../scratch.ts";
import type { Weight } from "../weights/weight.ts";
import { matmul, type MatmulAdapter, matmulForm, type MatmulPlan, planMatmul } from "./matmul.ts";
import { matvec, type PlainAdapter, planMatvec, type SubgroupPlan } from "./matvec.ts";
import type { Product } from "./product.ts";
import { choiceKey, type TileSize, TUNED_FEW_ROWS, TUNED_ROWS } from "./tile_choice.ts";

/** Long enough that a wait for the GPU, about 0.1 ms, weighs little. */
const ROUND_MS = 20;
const MAX_REPETITIONS = 64;

/** A size other than the rule's must be this much faster: clocks waver. */
const GAIN = 1.03;

/** What is chosen from: of many rows, or of a few by subgroups. */
export type TunedPlan = MatmulPlan | SubgroupPlan;

/** Milliseconds of a product with a plan, warm. */
export type TimeProduct = (commands: Commands, product: Product, plan: TunedPlan) => Promise<number>;

/** What plans follow from. */
type TunedAdapter = MatmulAdapter & PlainAdapter;

/** What is chosen for, and how it is measured. */
export interface TuneOptions {
  /** @default the one of the commands */
  readonly adapter?: TunedAdapter;
  /** @default the wall clock around repetitions */
  readonly time?: TimeProduct;
}

/** A choice that is to be made: two plans, and the one that is taken without it. */
interface Choice {
  readonly weight: Weight;
  readonly rows: number;
  readonly key: string;
  readonly plans: Readonly<Record<TileSize | "byRule", TunedPlan>>;
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
  { adapter = commands.gpu.info, time = timeProduct }: TuneOptions = {},
): Promise<number> {
  const scratch = new Scratch(commands);
  let measured = 0;
  try {
    for (const choice of weights.flatMap((weight) => choicesOf(adapter, weight))) {
      if (commands.tiles.entries[choice.key] !== undefined) continue;
      commands.tiles.set(
        choice.key,
        await fasterSize(choice, (plan) => time(commands, productOf(choice, scratch), plan)),
      );
      measured++;
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
    for (const choice of weights.flatMap((weight) => choicesOf(commands.gpu.info, weight))) {
      if (commands.tiles.entries[choice.key] !== undefined) continue;
      const { small, large } = choice.plans;
      for (const plan of [small, large]) multiply(commands, productOf(choice, scratch), plan);
    }
  } finally {
    scratch.close();
  }
}

/** Those that there are for a weight on an adapter. */
function choicesOf(adapter: TunedAdapter, weight: Weight): Choice[] {
  const many = TUNED_ROWS.map((rows): Choice => {
    const planOf = (size?: TileSize) => planMatmul(adapter, rows, weight, { size });
    const plans = { byRule: planOf(), small: planOf("small"), large: planOf("large") };
    return { weight, rows, key: choiceKey(rows, weight), plans };
  });
  return [...many.filter(({ plans }) => !isSame(plans.small, plans.large)), ...fewRows(adapter, weight)];
}

function fewRows(adapter: TunedAdapter, weight: Weight): Choice[] {
  const plan = planMatvec(adapter, weight);
  if (plan.kind !== "subgroups") return [];
  const small: SubgroupPlan = { ...plan, size: "small" };
  const large: SubgroupPlan = { ...plan, size: "large" };
  const key = choiceKey(TUNED_FEW_ROWS, weight);
  return [{ weight, rows: TUNED_FEW_ROWS, key, plans: { byRule: small, small, large } }];
}

async function fasterSize({ plans }: Choice, time: (plan: TunedPlan) => Promise<number>): Promise<TileSize> {
  const byRule = isSame(plans.byRule, plans.large) ? "large" : "small";
  const other = byRule === "large" ? "small" : "large";
  const ruleMs = await time(plans[byRule]);
  return await time(plans[other]) * GAIN < ruleMs ? other : byRule;
}

function isSame(one: TunedPlan, other: TunedPlan): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function productOf({ weight, rows, plans: { byRule } }: Choice, scratch: Scratch): Product {
  const form = byRule.kind === "subgroups" ? "digits" : matmulForm(byRule);
  return {
    weight,
    rows,
    scratch,
    x: takeRows(scratch, "rows to tune with", { form, rows, cols: weight.cols }),
    y: scratch.take("results of tuning", "f32", [rows, weight.rows]),
  };
}

function multiply(commands: Commands, product: Product, plan: TunedPlan): void {
  if (plan.kind === "subgroups") matvec(commands, product, plan);
  else matmul(commands, product, plan);
}

async function timeProduct(commands: Commands, product: Product, plan: TunedPlan): Promise<number> {
  const run = async (repetitions: number) => {
    const start = performance.now();
    for (let i = 0; i < repetitions; i++) multiply(commands, product, plan);
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
