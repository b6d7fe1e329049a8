/**
 * Few rows by quantised weights, for the kernel bench: both tiles of 8 rows, and gated products that store digits beside those that
 * leave them to a dispatch of their own. Shapes of Llama-3-8B. The tests check the results; this only times.
 */

import { gatedMatvec, matvec, planMatvec, type SubgroupPlan } from "../../kernels/products/matvec.ts";
import { digitRows } from "../../kernels/products/digit_rows.ts";
import { type Rows, takeRows } from "../../kernels/rows.ts";
import { Scratch } from "../../kernels/scratch.ts";
import { type QuantizedDType, weightBytes } from "../../kernels/weights/format.ts";
import { randomWeight } from "../../kernels/weights/random_weight.ts";
import { createWeight, freeWeight, type Weight } from "../../kernels/weights/weight.ts";
import { type KernelFigures, type KernelTiming, timeKernel } from "./kernel_timing.ts";

const DTYPES: readonly QuantizedDType[] = ["q4", "q8", "q4k"];
const [GATE_AND_UP, ...OTHERS] = [[28672, 4096], [6144, 4096], [4096, 4096], [4096, 14336]] as const;
/** Weights are rotated through, so that no cache holds the next one. */
const ROTATED_BYTES = 2 ** 28;

interface Operands {
  readonly dtype: QuantizedDType;
  readonly weights: readonly Weight[];
  readonly plan: SubgroupPlan;
  readonly scratch: Scratch;
}

/** Every case; nothing on adapters whose subgroups do not multiply them. */
export async function benchQuantized(timing: KernelTiming): Promise<KernelFigures[]> {
  const { gpu } = timing.commands;
  const figures: KernelFigures[] = [];
  for (const dtype of DTYPES) {
    for (const [rows, cols] of [GATE_AND_UP, ...OTHERS]) {
      const copies = Math.ceil(ROTATED_BYTES / weightBytes(dtype, rows * cols));
      const weights = Array.from({ length: copies }, (_, i) => createWeight(gpu, `copy ${i}`, { rows, cols, dtype }));
      const scratch = new Scratch(timing.commands);
      try {
        const plan = weights[0] && planMatvec(gpu.info, weights[0]);
        if (plan?.kind !== "subgroups") return [];
        for (const [seed, weight] of weights.entries()) {
          randomWeight(timing.commands, weight, { seed, deviation: 0.02 });
        }
        const operands = { dtype, weights, plan, scratch };
        figures.push(...await benchTiles(timing, operands));
        if (rows === GATE_AND_UP[0]) figures.push(...await benchDigits(timing, operands));
      } finally {
        for (const weight of weights) freeWeight(gpu, weight);
        scratch.close();
      }
    }
  }
  return figures;
}

async function benchTiles(timing: KernelTiming, { plan, ...operands }: Operands): Promise<KernelFigures[]> {
  const { scratch } = operands;
  const figures: KernelFigures[] = [];
  for (const rows of [1, 4, 8, 32]) {
    for (const size of rows < 8 ? ["small"] as const : ["small", "large"] as const) {
      const run = (weight: Weight, x: Rows<"digits">) => {
        const y = scratch.take("y", "f32", [rows, weight.rows]);
        matvec(timing.commands, { weight, x, y, rows, scratch }, { ...plan, size });
      };
      figures.push(...await bench(timing, operands, { name: rows < 8 ? "" : ` by ${size} tiles`, rows, run }));
    }
  }
  return figures;
}

async function benchDigits(timing: KernelTiming, { plan, ...operands }: Operands): Promise<KernelFigures[]> {
  const { commands } = timing;
  const { scratch } = operands;
  const figures: KernelFigures[] = [];
  for (const rows of [1, 2]) {
    const gate = (weight: Weight, x: Rows<"digits">, form: "digits" | "f32") => {
      const out = takeRows(scratch, `gated, ${form}`, { form, rows, cols: weight.rows / 2 });
      gatedMatvec(commands, { weight, x, out, rows, activation: "silu", scratch }, plan);
      return out;
    };
    const apart = (weight: Weight, x: Rows<"digits">) => {
      const shape = { rows, cols: weight.rows / 2 };
      const out = takeRows(scratch, "digits of gated", { form: "digits", ...shape });
      digitRows(commands, { x: gate(weight, x, "f32"), out, ...shape });
    };
    const together = (weight: Weight, x: Rows<"digits">) => void gate(weight, x, "digits");
    figures.push(...await bench(timing, operands, { name: " gated, then digits", rows, run: apart }));
    figures.push(...await bench(timing, operands, { name: " gated as digits", rows, run: together }));
  }
  return figures;
}

async function bench(
  timing: KernelTiming,
  { dtype, weights, scratch }: Omit<Operands, "plan">,
  { name, rows, run }: {
    readonly name: string;
    readonly rows: number;
    readonly run: (weight: Weight, x: Rows<"digits">) => void;
  },
): Promise<readonly KernelFigures[]> {
  const [{ rows: outputs, cols } = { rows: 0, cols: 0 }] = weights;
  const x = takeRows(scratch, "x", { form: "digits", rows, cols });
  return await timeKernel(timing, {
    name: `quantised ${rows}×${outputs}×${cols} ${dtype}${name}`,
    record: (call) => {
      const weight = weights[call % weights.length];
      if (weight !== undefined) run(weight, x);
    },
    bytes: weightBytes(dtype, outputs * cols),
    flop: 2 * rows * outputs * cols,
  });
}
