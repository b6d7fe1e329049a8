/**
 * Text for shaders: unrolling, multiply-adds of eight, reductions over a workgroup, grids beyond one dimension.
 * Knows WGSL; knows no op.
 */

import type { GpuInfo } from "./gpu.ts";
import { MAX_HALF } from "./half.ts";
import type { BindingSpec } from "./pipeline.ts";

const COMPONENTS = ["x", "y", "z", "w"] as const;
const MAX_GROUPS_X = 65535;

/** The component of a vec4 with this index. */
export function component(index: number): string {
  return COMPONENTS[index % 4] ?? "x";
}

/** Repeats a piece of text for 0 … count − 1: the loops that a compiler must not see. */
export function unroll(count: number, piece: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => piece(index)).join("\n");
}

/** WGSL: values within the range of f16, beyond which packing is not defined, and eight of them in 16 bytes. */
export const HALF_PACKING_WGSL = /* wgsl */ `
fn bounded(value: vec4<f32>) -> vec4<f32> { return clamp(value, vec4<f32>(-${MAX_HALF}.0), vec4<f32>(${MAX_HALF}.0)); }
fn packed(a: vec4<f32>, b: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(pack2x16float(a.xy), pack2x16float(a.zw), pack2x16float(b.xy), pack2x16float(b.zw));
}
`;

/** A storage binding that is only read. */
export function reads(name: string, type: string): BindingSpec {
  return { name, type, access: "read" };
}

/** A storage binding that is written, and may be read. */
export function writes(name: string, type: string): BindingSpec {
  return { name, type, access: "read_write" };
}

/**
 * Eight fused multiply-adds in ascending k. Every product uses this one expression: a row's bits depend on its order.
 * @param sum the running f32 sum
 * @param a prefix of the names `<a>_lo`, `<a>_hi`; likewise `b`
 */
export function addEight(sum: string, a: string, b: string): string {
  return [..."xyzw"].map((c) => ["lo", c]).concat([..."xyzw"].map((c) => ["hi", c]))
    .map(([half, c]) => `${sum} = fma(${a}_${half}.${c}, ${b}_${half}.${c}, ${sum});`).join(" ");
}

/**
 * Declares `workgroup_sum(t, value) -> f32`: the sum over the workgroup in a fixed order, returned to every thread.
 * @param threads a power of two
 */
export function sumOverWorkgroup(threads: number): string {
  return `
    var<workgroup> sum_parts: array<f32, ${threads}>;
    fn workgroup_sum(t: u32, value: f32) -> f32 {
      sum_parts[t] = value;
      ${halvings(threads, (half) => `sum_parts[t] += sum_parts[t + ${half}u];`)}
      workgroupBarrier();
      let sum = sum_parts[0];
      workgroupBarrier();
      return sum;
    }`;
}

/**
 * Declares the same `workgroup_sum` by sums of subgroups, which meet at one barrier; to be called once. The kernel needs
 * the feature subgroups.
 * @param threads a multiple of `subgroupSize`
 */
export function sumOverSubgroups(threads: number, subgroupSize: number): string {
  const subgroups = threads / subgroupSize;
  return `
    var<workgroup> sum_parts: array<f32, ${subgroups}>;
    fn workgroup_sum(t: u32, value: f32) -> f32 {
      let own = subgroupAdd(value);
      if (t % ${subgroupSize}u == 0u) { sum_parts[t / ${subgroupSize}u] = own; }
      workgroupBarrier();
      var sum = sum_parts[0];
      ${unroll(subgroups - 1, (i) => `sum += sum_parts[${i + 1}];`)}
      return sum;
    }`;
}

/**
 * Declares `workgroup_best(t, candidate) -> Best`: the highest value of the workgroup; ties go to the lower index.
 * @param threads a power of two
 */
export function bestOverWorkgroup(threads: number): string {
  return `
    struct Best { value: f32, index: u32 }
    var<workgroup> best_parts: array<Best, ${threads}>;
    fn better(a: Best, b: Best) -> Best {
      if (b.value > a.value || (b.value == a.value && b.index < a.index)) { return b; }
      return a;
    }
    fn workgroup_best(t: u32, candidate: Best) -> Best {
      best_parts[t] = candidate;
      ${halvings(threads, (half) => `best_parts[t] = better(best_parts[t], best_parts[t + ${half}u]);`)}
      workgroupBarrier();
      let best = best_parts[0];
      workgroupBarrier();
      return best;
    }`;
}

/**
 * A loop in which a thread visits its share of `params.vocabulary` logits from `first` on, four loads in flight.
 * Needs a binding `logits: array<f32>`; `visit` gets WGSL expressions of a logit, its token, and what `beside` gives for
 * a token that there is: that is loaded with the logits, ahead of any condition.
 */
export function eachLogit(
  threads: number,
  visit: (logit: string, token: string, beside: string) => string,
  beside?: (token: string) => string,
): string {
  return `
      for (var i = t; i < params.vocabulary; i += ${4 * threads}u) {
        ${unroll(4, (n) => `let token${n} = i + ${n * threads}u;`)}
        ${unroll(4, (n) => `let logit${n} = logits[first + min(token${n}, params.vocabulary - 1u)];`)}
        ${beside ? unroll(4, (n) => `let beside${n} = ${beside(`min(token${n}, params.vocabulary - 1u)`)};`) : ""}
        ${unroll(4, (n) => `if (token${n} < params.vocabulary) { ${visit(`logit${n}`, `token${n}`, `beside${n}`)} }`)}
      }`;
}

/** Declares `highest(first, t) -> Best`: a thread's best logit. Needs `bestOverWorkgroup` and what `eachLogit` needs. */
export function highestLogit(threads: number): string {
  return `
    fn highest(first: u32, t: u32) -> Best {
      // Threads without a logit offer one that loses against every finite one.
      var best = Best(-3.4e38, params.vocabulary - 1u);
      ${eachLogit(threads, (logit, token) => `if (${logit} > best.value) { best = Best(${logit}, ${token}); }`)}
      return best;
    }`;
}

/** Statements of a tree over a workgroup: the lower half of the threads takes in the upper, again and again. */
export function halvings(threads: number, takeIn: (half: number) => string): string {
  const steps: string[] = [];
  for (let half = threads / 2; half >= 1; half /= 2) {
    steps.push(`workgroupBarrier();\nif (t < ${half}u) { ${takeIn(half)} }`);
  }
  return steps.join("\n");
}

/** WGSL for the index of a workgroup in a grid made by `spread`; needs the builtins `group` and `grid`. */
export const GROUP_INDEX = "group.x + group.y * grid.x";

/** The parameters of `main` that most kernels take. */
export const BUILTINS =
  "@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) t: u32";

/** A grid of at least this many workgroups, in two dimensions when one cannot hold them; the kernel guards the excess. */
export function spread(count: number): [number, number, number] {
  if (count <= MAX_GROUPS_X) return [count, count === 0 ? 0 : 1, 1];
  const rows = Math.ceil(count / MAX_GROUPS_X);
  return [Math.ceil(count / rows), rows, 1];
}

/** Threads of a workgroup that walks over a row of logits: as many as there can be, where loads take long. */
export function logitThreads(info: Pick<GpuInfo, "software" | "maxInvocations">): number {
  if (info.software || info.maxInvocations < 1024) return 256;
  return 1024;
}
