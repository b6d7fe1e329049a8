/**
 * Whether matrix units compute what the adapter claims: drivers have been seen that load wrong numbers from workgroup
 * memory. The factors are small integers, whose products and sums are exact even in f16: a right result is right to the bit.
 */

import { fromHalf, toHalf } from "./half.ts";
import { describeShape, type MatrixShape } from "./provider.ts";
import { type DType, sizeOf, type Tensor } from "./tensor.ts";
import { whileTurning } from "./turning.ts";

/** What the test needs of a device that is being opened. */
export interface TestedGpu {
  readonly device: GPUDevice;
  tensor(label: string, dtype: DType, shape: readonly number[]): Tensor;
  write(tensor: Tensor, data: ArrayBufferView<ArrayBuffer>): void;
  read(requests: readonly { readonly tensor: Tensor }[]): Promise<Uint8Array<ArrayBuffer>[]>;
  free(tensor: Tensor): void;
}

/** Instructions along k: the second adds to the sums of the first. */
const STEPS = 2;

/** Halves of one `vec4<u32>`. */
const EIGHT = 8;

/**
 * Computes one product twice, with its factors loaded from storage and from workgroup memory.
 * @returns whether both are exact; a shader that the driver refuses is as good as a wrong result
 */
export async function computesRight(gpu: TestedGpu, shape: MatrixShape): Promise<boolean> {
  const { m, n } = shape;
  const depth = shape.k * STEPS;
  const label = `matrix self-test ${describeShape(shape)}`;
  const left = Array.from({ length: m * depth }, (_, i) => (i * 7) % 9 - 4);
  const right = Array.from({ length: n * depth }, (_, i) => (i * 5) % 7 - 3);
  const tensors = [
    gpu.tensor(label, "f16", [m, depth]),
    gpu.tensor(label, "f16", [n, depth]),
    gpu.tensor(label, shape.result, [2, m, n]),
  ] as const;
  try {
    gpu.write(tensors[0], toHalf(left));
    gpu.write(tensors[1], toHalf(right));
    if (!await dispatch(gpu, source(shape, gpu.device.adapterInfo.subgroupMaxSize), tensors)) return false;
    const sums = await readSums(gpu, tensors[2]);
    const expected = Array.from(
      { length: m * n },
      (_, i) => dot(left, right, { row: Math.floor(i / n), column: i % n, depth }),
    );
    return sums.every((sum, i) => sum === expected[i % (m * n)]);
  } finally {
    for (const tensor of tensors) gpu.free(tensor);
  }
}

/** Both factors lie with k contiguous, as activations and weights do. */
function source({ m, n, k, result }: MatrixShape, threads: number): string {
  const stride = (k * STEPS) / EIGHT;
  const [lefts, rights] = [m * stride, n * stride];
  const product = (name: string, left: string, right: string, from: readonly [number, number]) =>
    Array.from({ length: STEPS }, (_, step) => {
      const at = from.map((start) => `${start + (step * k) / EIGHT}u`);
      return `${name} = subgroupMatrixMultiplyAccumulate(
        subgroupMatrixLoad<subgroup_matrix_left<f16, ${k}, ${m}>, row_major>(&${left}, ${at[0]}, ${stride}u),
        subgroupMatrixLoad<subgroup_matrix_right<f16, ${n}, ${k}>, col_major>(&${right}, ${at[1]}, ${stride}u),
        ${name});`;
    }).join("\n");
  return /* wgsl */ `
enable f16;
enable chromium_experimental_subgroup_matrix;
@group(0) @binding(0) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<${result}>;
var<workgroup> staged: array<vec4<u32>, ${lefts + rights}>;
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) t: u32) {
  for (var i = t; i < ${lefts}u; i += ${threads}u) { staged[i] = a[i]; }
  for (var i = t; i < ${rights}u; i += ${threads}u) { staged[${lefts}u + i] = b[i]; }
  workgroupBarrier();
  var direct: subgroup_matrix_result<${result}, ${n}, ${m}>;
  ${product("direct", "a", "b", [0, 0])}
  subgroupMatrixStore<row_major>(&sums, 0u, direct, ${n}u);
  var shared_sums: subgroup_matrix_result<${result}, ${n}, ${m}>;
  ${product("shared_sums", "staged", "staged", [0, lefts])}
  subgroupMatrixStore<row_major>(&sums, ${m * n}u, shared_sums, ${n}u);
}`;
}

/**
 * Without the command recorder, which needs an open device: this is part of opening one.
 * @returns whether it was accepted
 */
async function dispatch({ device }: TestedGpu, code: string, tensors: readonly Tensor[]): Promise<boolean> {
  device.pushErrorScope("internal");
  device.pushErrorScope("validation");
  const pipeline = device.createComputePipeline({
    layout: "auto",
    compute: { module: device.createShaderModule({ code }), entryPoint: "main" },
  });
  const entries = tensors.map(({ buffer }, binding) => ({ binding, resource: { buffer } }));
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  device.queue.submit([encoder.finish()]);
  const errors = await whileTurning(Promise.all([device.popErrorScope(), device.popErrorScope()]));
  return errors.every((error) => error === null);
}

async function readSums(gpu: TestedGpu, tensor: Tensor): Promise<Float32Array> {
  const [bytes = new Uint8Array(0)] = await gpu.read([{ tensor }]);
  const words = bytes.buffer;
  const count = sizeOf(tensor.shape);
  return tensor.dtype === "f32" ? new Float32Array(words, 0, count) : fromHalf(new Uint16Array(words, 0, count));
}

function dot(
  left: readonly number[],
  right: readonly number[],
  { row, column, depth }: { readonly row: number; readonly column: number; readonly depth: number },
): number {
  let sum = 0;
  for (let i = 0; i < depth; i++) sum += (left[row * depth + i] ?? 0) * (right[column * depth + i] ?? 0);
  return sum;
}
