/** Whether 16-bit numbers that are on the GPU already are all small enough, as `magnitude.ts` finds on the host. */

import type { Commands, KernelSpec } from "../pipeline.ts";
import type { Tensor } from "../tensor.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "../wgsl.ts";

/** Numbers to be checked. */
export interface CheckedHalves {
  /** Eights of them to a vector. */
  readonly numbers: Tensor;
  readonly firstEight: number;
  readonly eights: number;
  /** Bits without the sign that no number may reach. */
  readonly bound: number;
  /** u32: set to 1 where one does, else left as it is. */
  readonly flags: Tensor;
  readonly flag: number;
}

const THREADS = 64;

/** Sets a flag where a number is too large, infinite or none. */
export function checkHalves(commands: Commands, { numbers, flags, ...range }: CheckedHalves): void {
  const { firstEight, eights, bound, flag } = range;
  commands.dispatch(commands.kernel("check_halves", spec), {
    tensors: [numbers, flags],
    params: { firstEight, eights, bound, flag },
    groups: spread(Math.ceil(eights / THREADS)),
  });
}

function spec(): KernelSpec {
  return {
    bindings: [reads("numbers", "array<vec4<u32>>"), writes("flags", "array<atomic<u32>>")],
    params: [["firstEight", "u32"], ["eights", "u32"], ["bound", "u32"], ["flag", "u32"]],
    source: `
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let i = (${GROUP_INDEX}) * ${THREADS}u + t;
        if (i >= params.eights) { return; }
        let words = numbers[params.firstEight + i];
        let low = words & vec4<u32>(0x7fffu);
        let high = (words >> vec4<u32>(16u)) & vec4<u32>(0x7fffu);
        if (any(max(low, high) >= vec4<u32>(params.bound))) { atomicStore(&flags[params.flag], 1u); }
      }`,
  };
}
