/**
 * What lies between the products of a layer, for the kernel bench: norms, gates, and products that gate their own results beside
 * those that do not. Shapes of Llama-3-8B. The tests check the results; this only times.
 */

import { gatedMatmul, matmul, matmulForm, planMatmul } from "../../kernels/products/matmul.ts";
import { gatedMatvec, matvec, type MatvecPlan, planMatvec, planRows } from "../../kernels/products/matvec.ts";
import { gateAfter, type GatedProduct, type Product } from "../../kernels/products/product.ts";
import { type NormCut, normCut, rmsNorm } from "../../kernels/rms_norm.ts";
import { type RowForm, takeRows } from "../../kernels/rows.ts";
import { Scratch } from "../../kernels/scratch.ts";
import { randomWeight } from "../../kernels/weights/random_weight.ts";
import { createWeight, freeWeight } from "../../kernels/weights/weight.ts";
import { type KernelFigures, type KernelTiming, timeKernel } from "./kernel_timing.ts";

const HIDDEN = 4096;
const FFN = 14336;

/** Threads of a norm that are compared. */
const NORM_THREADS = [256, 512, 1024] as const;

/** Every fused kernel, and what it takes the place of; nothing on software adapters, where this would take minutes. */
export async function benchFused(timing: KernelTiming): Promise<KernelFigures[]> {
  if (timing.commands.gpu.info.software) return [];
  const scratch = new Scratch(timing.commands);
  try {
    return [...await benchNorms(timing, scratch), ...await benchGates(timing, scratch)];
  } finally {
    scratch.close();
  }
}

async function benchNorms(timing: KernelTiming, scratch: Scratch): Promise<KernelFigures[]> {
  const { commands } = timing;
  const figures: KernelFigures[] = [];
  const cols = HIDDEN;
  const weight = scratch.take("norm", "f32", [cols]);
  for (const [rows, form] of [[1, "f32"], [1, "f16"], [512, "f16"]] as const) {
    const x = scratch.take("x of norms", "f32", [rows, cols]);
    const out = takeRows(scratch, "normed", { form, rows, cols });
    for (const cut of NORM_THREADS.map((threads): NormCut => ({ ...normCut(commands.gpu.info, cols), threads }))) {
      const record = () => rmsNorm(commands, { x, weight, out, rows, cols, epsilon: 1e-5 }, cut);
      const name = `rms_norm ${rows}×${cols} ${form}, ${cut.threads} threads`;
      figures.push(...await timeKernel(timing, { name, record, bytes: rows * cols * (form === "f16" ? 6 : 8) }));
    }
  }
  return figures;
}

type Gating = { readonly form: RowForm; readonly fused: Run<GatedProduct>; readonly plain: Run<Product> };
type Run<Operands> = (product: Operands) => void;

async function benchGates(timing: KernelTiming, scratch: Scratch): Promise<KernelFigures[]> {
  const { commands } = timing;
  const figures: KernelFigures[] = [];
  const weight = createWeight(commands.gpu, "gate and up", { rows: 2 * FFN, cols: HIDDEN, dtype: "f16" });
  randomWeight(commands, weight, { seed: 1, deviation: 0.02 });
  const vector = (plan: MatvecPlan): Gating => ({
    form: plan.kind === "matrix" ? "f16" : "f32",
    fused: (product) => gatedMatvec(commands, product, plan),
    plain: (product) => matvec(commands, product, plan),
  });
  const info = commands.gpu.info;
  const tiles: Gating = {
    form: matmulForm(planMatmul(info, 512, weight)),
    fused: (product) => gatedMatmul(commands, product),
    plain: (product) => matmul(commands, product),
  };
  const cases: readonly (readonly [string, number, Gating])[] = [
    ["matvec", 1, vector(planMatvec(info, weight))],
    ["matvec", 8, vector(planMatvec(info, weight))],
    ["dense rows", 1, vector(planRows(info, weight))],
    ["dense rows", 32, vector(planRows(info, weight))],
    ["matmul", 512, tiles],
    ["matmul", 2048, tiles],
  ];
  try {
    for (const [name, rows, { form, fused, plain }] of cases) {
      const x = takeRows(scratch, "x of gates", { form, rows, cols: HIDDEN });
      const out = takeRows(scratch, "gated", { form, rows, cols: FFN });
      const product: GatedProduct = { weight, x, out, rows, activation: "silu", scratch };
      const shape = `${rows}×${2 * FFN}×${HIDDEN}`;
      const work = { bytes: 2 * FFN * HIDDEN * 2, flop: 4 * rows * FFN * HIDDEN };
      const apart = () => gateAfter(commands, product, plain);
      figures.push(...await timeKernel(timing, { name: `${name} ${shape}, then swiglu`, record: apart, ...work }));
      figures.push(
        ...await timeKernel(timing, { name: `gated ${name} ${shape}`, record: () => fused(product), ...work }),
      );
    }
    return figures;
  } finally {
    freeWeight(commands.gpu, weight);
  }
}
