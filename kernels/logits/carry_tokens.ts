/**
 * Tokens of rows, some of which are drawn tokens that have not left the GPU: the host names their places instead of them.
 * Knows ids and places; knows nothing of how tokens are drawn.
 */

import type { Commands, KernelSpec } from "../pipeline.ts";
import { expectTensor, type Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";

/** Operands of the carrying. */
export interface CarryTokens {
  /** u32 [rows]: an id, or `carriedFrom` a place among the drawn tokens */
  readonly given: Tensor;
  /** u32 [≥ every place named + 1] */
  readonly drawn: Tensor;
  /** Written: u32 [rows] */
  readonly tokens: Tensor;
  readonly rows: number;
}

const THREADS = 64;

/** No id of a token has this bit. */
export const CARRIED = 0x80000000;

/** The number that stands for the drawn token at a place. */
export function carriedFrom(place: number): number {
  return CARRIED + place;
}

/**
 * Writes the token of every row.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit
 */
export function carryTokens(commands: Commands, { given, drawn, tokens, rows }: CarryTokens): void {
  expectTensor("carry_tokens", given, "u32", [rows]);
  expectTensor("carry_tokens", drawn, "u32", [1]);
  expectTensor("carry_tokens", tokens, "u32", [rows]);
  commands.dispatch(commands.kernel("carry_tokens", spec), {
    tensors: [given, drawn, tokens],
    params: { rows },
    groups: spread(Math.ceil(rows / THREADS)),
  });
}

function spec(): KernelSpec {
  return {
    bindings: [reads("given", "array<u32>"), reads("drawn", "array<u32>"), writes("tokens", "array<u32>")],
    params: [["rows", "u32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let row = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (row >= params.rows) { return; }
        let id = given[row];
        if (id < ${CARRIED}u) { tokens[row] = id; } else { tokens[row] = drawn[id - ${CARRIED}u]; }
      }`,
  };
}
