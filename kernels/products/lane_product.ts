/**
 * The matrix product for software adapters: each lane owns whole weight rows, and walks k with the input rows in step.
 * Knows its tile; `matvec.ts` and `matmul.ts` decide when to use it. A CPU driver loads lane by lane, even where all lanes
 * read the same value. Where subgroups exist, each lane therefore loads another of eight values and broadcasts it, which is
 * a shuffle: 6.2 in place of 3.0 GFLOP/s for 256 rows by [768, 256] (llvmpipe on two busy cores, 2026-11-27).
 */

import type { GpuInfo } from "../gpu.ts";
import type { KernelSpec } from "../pipeline.ts";
import type { WeightDType } from "../weights/format.ts";
import { readEight, weightType } from "../weights/read_eight.ts";
import { describeGate, type ProductGate, productGateWgsl } from "./product.ts";
import { addEight, BUILTINS, reads, unroll, writes } from "../wgsl.ts";

/** Threads in a workgroup. */
export const LANES = 32;

/** A variant of the kernel. The sums of a row are added in ascending k in every one of them, so their bits agree. */
export interface LaneTile {
  readonly dtype: WeightDType;
  readonly accumulate: boolean;
  /** Input rows a workgroup takes. */
  readonly inputs: number;
  /** Weight rows a lane takes, `LANES` apart. */
  readonly outputs: number;
  /** Whether lanes share their loads of inputs, see `canBroadcast`; changes no bits. */
  readonly broadcast: boolean;
  /** Given: the first half of a lane's weight rows are the gate's, the others those that they gate; f32, not added. */
  readonly gate?: ProductGate;
}

/** Values of an input row that a subgroup loads at a time, one in each lane. */
const EIGHT = 8;

/** Whether subgroups have a lane for each of the eight values. */
export function canBroadcast({ subgroups, subgroupSize }: Pick<GpuInfo, "subgroups" | "subgroupSize">): boolean {
  return subgroups && subgroupSize !== undefined && subgroupSize >= EIGHT;
}

/** The kernel's name, different for every variant. */
export function laneProductName({ dtype, accumulate, inputs, outputs, broadcast, gate }: LaneTile): string {
  return `lane_product ${dtype} ${inputs}×${outputs}${broadcast ? " broadcast" : ""}${accumulate ? " accumulate" : ""}${
    describeGate(gate)
  }`;
}

/** Grid: weight rows over x, input rows over y. */
export function laneProduct(tile: LaneTile): KernelSpec {
  const { dtype, inputs, outputs, broadcast, gate } = tile;
  const each = (piece: (input: number, output: number) => string) =>
    unroll(inputs, (m) => unroll(outputs, (n) => piece(m, n)));
  return {
    bindings: [
      reads("w", weightType(dtype)),
      reads("x", broadcast ? "array<f32>" : "array<vec4<f32>>"),
      writes("y", "array<f32>"),
    ],
    params: [["rows", "u32"], ["partRows", "u32"], ["firstRow", "u32"], ["weightRows", "u32"], ["eights", "u32"]],
    ...(broadcast && { needs: ["subgroups"] }),
    source: `
      ${gate === undefined ? "" : productGateWgsl(gate)}
      @compute @workgroup_size(${LANES}) fn main(${BUILTINS}${
      broadcast ? ", @builtin(subgroup_invocation_id) lane: u32" : ""
    }) {
        let width = params.partRows${gate === undefined ? "" : " / 2u"};
        let first_n = group.x * ${LANES * resultsOf(tile)}u + t;
        let first_m = group.y * ${inputs}u;
        ${unroll(outputs, (n) => `let w${n} = (${weightRow(tile, n)}) * params.eights;`)}
        ${unroll(inputs, (m) => `let x${m} = min(first_m + ${m}u, params.rows - 1u) * params.eights;`)}
        ${each((m, n) => `var sum${m}_${n} = 0.0;`)}
        for (var k = 0u; k < params.eights; k += 1u) {
          ${unroll(outputs, (n) => readEight(dtype, "w", { into: `h${n}`, index: `w${n} + k` }))}
          ${
      unroll(inputs, (m) => loadInput(tile, m) + unroll(outputs, (n) => addEight(`sum${m}_${n}`, `h${n}`, `v${m}`)))
    }
        }
        ${unroll(inputs, (m) => unroll(resultsOf(tile), (n) => store(tile, m, n)))}
      }`,
  };
}

/** Results of a lane for each input row. */
function resultsOf({ outputs, gate }: LaneTile): number {
  return gate === undefined ? outputs : outputs / 2;
}

function weightRow(tile: LaneTile, n: number): string {
  const results = resultsOf(tile);
  return `${n < results ? "" : "width + "}min(first_n + ${(n % results) * LANES}u, width - 1u)`;
}

function store(tile: LaneTile, m: number, n: number): string {
  const { accumulate, gate } = tile;
  const row = `(first_m + ${m}u)`;
  const output = `first_n + ${n * LANES}u`;
  const plain = `let at = ${row} * params.weightRows + params.firstRow + ${output};
          y[at] = ${accumulate ? "y[at] + " : ""}sum${m}_${n};`;
  const gated = `y[${row} * width + ${output}] = gated(vec4<f32>(sum${m}_${n}), vec4<f32>(sum${m}_${
    n + resultsOf(tile)
  })).x;`;
  return `if (${row} < params.rows && ${output} < width) {
          ${gate === undefined ? plain : gated}
        }`;
}

/** Eight values of an input row, as `v<m>_lo` and `v<m>_hi` in every lane. */
function loadInput({ broadcast }: LaneTile, m: number): string {
  if (!broadcast) return readEight("f32", "x", { into: `v${m}`, index: `x${m} + k` });
  const four = (from: number) =>
    `vec4<f32>(${[0, 1, 2, 3].map((i) => `subgroupBroadcast(own${m}, ${from + i}u)`).join(", ")})`;
  return `let own${m} = x[${EIGHT}u * (x${m} + k) + min(lane, ${EIGHT - 1}u)];
    let v${m}_lo = ${four(0)}; let v${m}_hi = ${four(4)};`;
}
