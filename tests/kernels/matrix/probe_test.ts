import assert from "node:assert/strict";
import { Fragments } from "../../../kernels/matrix_wgsl.ts";
import type { Tensor } from "../../../kernels/tensor.ts";
import { reads, unroll, writes } from "../../../kernels/wgsl.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

const [ROWS, COLS, DEPTH] = [16, 64, 64];

/** f32 sums of 64 exact products of halves; f16 sums round after each of them, 2^-11. */
const NMSE = { f32: 1e-12, f16: 1e-5 } as const;

/** One workgroup for each tile of sums, its factors straight from storage. */
function probeWgsl(fragments: Fragments): string {
  const { m, n, k } = fragments.shape;
  const stride = `${DEPTH / 8}u`;
  return /* wgsl */ `
@compute @workgroup_size(${fixture.gpu.device.adapterInfo.subgroupMaxSize})
fn main(@builtin(workgroup_id) tile: vec3<u32>) {
  ${fragments.zeroSums("sums")}
  ${
    unroll(DEPTH / k, (step) =>
      fragments.accumulate(
        "sums",
        fragments.left({ array: "x", at: `tile.y * ${m * DEPTH / 8}u + ${step * k / 8}u`, stride }),
        fragments.right({ array: "w", at: `tile.x * ${n * DEPTH / 8}u + ${step * k / 8}u`, stride }, "columns"),
      ))
  }
  ${fragments.storeSums({ array: "y", at: `tile.y * ${m * COLS}u + tile.x * ${n}u`, stride: `${COLS}u` }, "sums")}
}`;
}

async function valuesOf(y: Tensor): Promise<Float32Array> {
  if (y.dtype === "f32") return await fixture.floats(y);
  fixture.commands.submit();
  const [bytes] = await fixture.gpu.read([{ tensor: y }]);
  assert.ok(bytes);
  return Float32Array.from(new Float16Array(bytes.buffer));
}

Deno.test("every product that an adapter offers equals plain loops: [16, 64] · [64, 64]ᵀ", async () => {
  const random = new Random(1);
  const [x, w] = [random.halves(ROWS * DEPTH), random.halves(COLS * DEPTH)];
  const expected = Float64Array.from({ length: ROWS * COLS }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < DEPTH; k++) {
      sum += (x.values[Math.floor(i / COLS) * DEPTH + k] ?? 0) * (w.values[(i % COLS) * DEPTH + k] ?? 0);
    }
    return sum;
  });
  const { matrix, faultyMatrix, adapter } = fixture.gpu.info;
  assert.notEqual(matrix.length, 0, `${adapter} has no matrix units: run this by deno task test:matrix`);
  assert.deepEqual(faultyMatrix, []);
  for (const shape of matrix) {
    const fragments = new Fragments(shape);
    const kernel = fixture.commands.kernel(`probe ${Object.values(shape)}`, () => ({
      needs: ["f16", "matrix"],
      bindings: [
        reads("x", "array<vec4<u32>>"),
        reads("w", "array<vec4<u32>>"),
        writes("y", `array<${shape.result}>`),
      ],
      params: [["unused", "u32"]],
      source: probeWgsl(fragments),
    }));
    const y = fixture.zeros(shape.result, [ROWS, COLS]);
    fixture.commands.dispatch(kernel, {
      tensors: [fixture.upload("f16", x.halves, [ROWS, DEPTH]), fixture.upload("f16", w.halves, [COLS, DEPTH]), y],
      params: { unused: 0 },
      groups: [COLS / shape.n, ROWS / shape.m, 1],
    });
    assertClose(await valuesOf(y), expected, { nmse: NMSE[shape.result] });
  }
});
