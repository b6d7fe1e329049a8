/**
 * Root-mean-square normalisation of rows of hidden states, each by a workgroup that reads it once. Knows one row at a time.
 */

import { GpuError } from "./errors.ts";
import type { GpuInfo } from "./gpu_info.ts";
import type { Commands, KernelSpec } from "./pipeline.ts";
import { GROUP } from "./weights/format.ts";
import { DIGIT_LANES, DIGITS_WGSL, storeDigits } from "./digits.ts";
import { expectRows, type ProductForm, ROW_FORM_WGSL, type Rows, storeFour, writesRows } from "./rows.ts";
import { expectTensor, type Tensor } from "./tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, sumOverSubgroups, sumOverWorkgroup, unroll, writes } from "./wgsl.ts";

/** Operands of a normalisation. */
export interface RmsNorm {
  /** f32 [rows, cols] */
  readonly x: Tensor;
  /** f32 [cols] */
  readonly weight: Tensor;
  /** [rows, cols] in any form, in a buffer other than `x`; as digits only where the cut has subgroups */
  readonly out: Rows<ProductForm>;
  /** Whether the normed rows are added to what `out` holds, which then is f32. @default false */
  readonly accumulate?: boolean;
  readonly rows: number;
  /** A multiple of 4. */
  readonly cols: number;
  readonly epsilon: number;
}

/** How the threads of a workgroup share a row: a row's bits follow from it. */
export interface NormCut {
  /** A power of two. */
  readonly threads: number;
  /** Vectors of four in a row. */
  readonly quads: number;
  /** Subgroups of this size add first; undefined: a tree over all threads does. */
  readonly subgroupSize: number | undefined;
}

/** Fewer are no gain on any adapter. */
const MIN_THREADS = 32;
/** Vectors of four for each thread, at least, where threads are run one after another. */
const SOFTWARE_QUADS = 4;
const MAX_SOFTWARE_THREADS = 256;

/** The cut for rows of this width. It depends on the adapter and the width alone, so that a row's bits do too. */
export function normCut(
  { software, maxInvocations, subgroups, subgroupSize }: Pick<
    GpuInfo,
    "software" | "maxInvocations" | "subgroups" | "subgroupSize"
  >,
  cols: number,
): NormCut {
  const quads = cols / 4;
  const most = software ? Math.min(MAX_SOFTWARE_THREADS, quads / SOFTWARE_QUADS) : Math.min(maxInvocations, quads);
  const threads = Math.max(MIN_THREADS, 2 ** Math.floor(Math.log2(Math.max(1, most))));
  const whole = subgroups && subgroupSize !== undefined && threads % subgroupSize === 0;
  return { threads, quads, subgroupSize: whole ? subgroupSize : undefined };
}

/**
 * Computes out (+)= x / √(mean(x²) + ε) · weight for each row.
 * @param cut @default what suits the adapter
 * @throws {GpuError} `invalid_shape` when a tensor does not fit, `cols` is not a multiple of 4, or halves are to be added to
 */
export function rmsNorm(commands: Commands, operands: RmsNorm, cut = normCut(commands.gpu.info, operands.cols)): void {
  const { x, weight, out, rows, cols, epsilon, accumulate = false } = operands;
  if (cols % 4 !== 0) {
    throw new GpuError("invalid_shape", `Cannot dispatch rms_norm: ${cols} columns are not a multiple of 4`);
  }
  expectTensor("rms_norm", x, "f32", [rows, cols]);
  expectTensor("rms_norm", weight, "f32", [cols]);
  expectRows("rms_norm", out, { rows, cols, ...(accumulate && { forms: ["f32"] }) });
  if (out.form === "digits" && (cut.subgroupSize === undefined || cols % GROUP !== 0)) {
    throw new GpuError(
      "invalid_shape",
      `Cannot dispatch rms_norm: digits need subgroups, and rows of a multiple of ${GROUP}`,
    );
  }
  const name = `rms_norm ${Object.values(cut)} ${out.form}${accumulate ? " accumulate" : ""}`;
  commands.dispatch(commands.kernel(name, () => spec(cut, { form: out.form, accumulate })), {
    tensors: [x, weight, out.tensor],
    params: { rows, quads: cut.quads, epsilon },
    groups: spread(rows),
  });
}

/** Vectors of four that a thread takes at most. */
function roundsOf({ threads, quads }: NormCut): number {
  return Math.ceil(quads / threads);
}

/** Statements for each of a thread's vectors; `at` is its place in the row. */
export function eachQuad(cut: NormCut, body: (round: number, at: string) => string): string {
  const { threads, quads } = cut;
  return unroll(roundsOf(cut), (round) => {
    const at = `t + ${round * threads}u`;
    return (round + 1) * threads <= quads ? body(round, at) : `if (${at} < ${quads}u) { ${body(round, at)} }`;
  });
}

/** WGSL that `normScaleWgsl` needs in front of `main`. */
export function normSumWgsl({ threads, subgroupSize }: NormCut): string {
  return subgroupSize === undefined ? sumOverWorkgroup(threads) : sumOverSubgroups(threads, subgroupSize);
}

/** Features that kernels with `normSumWgsl` need. */
export function normNeeds({ subgroupSize }: NormCut): Pick<KernelSpec, "needs"> {
  return subgroupSize === undefined ? {} : { needs: ["subgroups"] };
}

/**
 * WGSL: a thread's vectors of the row that begins at `first` of `x`, as `quad<round>`, and `scale`, 1 / √(mean(x²) + ε).
 * Each row is a workgroup's.
 */
export function normScaleWgsl(cut: NormCut): string {
  return `
        ${unroll(roundsOf(cut), (round) => `var quad${round} = vec4<f32>();`)}
        ${eachQuad(cut, (round, at) => `quad${round} = x[first + ${at}];`)}
        var squares = 0.0;
        ${unroll(roundsOf(cut), (round) => `squares += dot(quad${round}, quad${round});`)}
        let mean = workgroup_sum(t, squares) / ${4 * cut.quads}.0;
        let scale = 1.0 / sqrt(mean + params.epsilon);`;
}

function spec(
  cut: NormCut,
  { form, accumulate }: { readonly form: ProductForm; readonly accumulate: boolean },
): KernelSpec {
  const value = (round: number) =>
    `${accumulate ? `out[first + t + ${round * cut.threads}u] + ` : ""}quad${round} * scale * factor${round}`;
  const out = form === "digits" ? writes("out", "array<u32>") : writesRows("out", form);
  return {
    ...normNeeds(cut),
    bindings: [reads("x", "array<vec4<f32>>"), reads("weight", "array<vec4<f32>>"), out],
    params: [["rows", "u32"], ["quads", "u32"], ["epsilon", "f32"]],
    source: `
      ${normSumWgsl(cut)}
      ${form === "digits" ? DIGITS_WGSL : ROW_FORM_WGSL}
      @compute @workgroup_size(${cut.threads}) fn main(${BUILTINS}) {
        let row = ${GROUP_INDEX};
        if (row >= params.rows) { return; }
        let first = row * params.quads;
        // On their way while the threads meet.
        ${unroll(roundsOf(cut), (round) => `var factor${round} = vec4<f32>();`)}
        ${eachQuad(cut, (round, at) => `factor${round} = weight[${at}];`)}
        ${normScaleWgsl(cut)}
        ${
      form === "digits"
        ? storeRowDigits(cut, value)
        : eachQuad(cut, (round, at) => storeFour(form, "out", { value: value(round), at: `first + ${at}` }))
    }
      }`,
  };
}

/** All threads take part, those beyond the row with zeros: subgroups find the largest value of a group. */
function storeRowDigits(cut: NormCut, value: (round: number) => string): string {
  const { threads, quads } = cut;
  return unroll(roundsOf(cut), (round) => {
    const at = `(t + ${round * threads}u)`;
    const place = { row: "row", group: `${at} / ${DIGIT_LANES}u`, groups: `${quads / DIGIT_LANES}u` };
    return storeDigits("out", {
      ...{ value: value(round), lane: `t % ${DIGIT_LANES}u`, place },
      ...((round + 1) * threads > quads && { exists: `${at} < ${quads}u` }),
    });
  });
}
