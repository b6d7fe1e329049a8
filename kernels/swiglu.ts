/**
 * The gate of the MLP: silu(gate) · up, or gelu(gate) · up. Knows rows in which the gate lies before the up half.
 */

import { GpuError } from "./errors.ts";
import type { Commands, KernelSpec } from "./pipeline.ts";
import { DIGIT_LANES, DIGITS_WGSL, storeDigits } from "./digits.ts";
import { expectRows, type ProductForm, ROW_FORM_WGSL, type Rows, storeFour, writesRows } from "./rows.ts";
import { expectTensor, type Tensor } from "./tensor.ts";
import { GROUP } from "./weights/format.ts";
import { BUILTINS, GROUP_INDEX, reads, spread, writes } from "./wgsl.ts";

/**
 * What a gate goes through: `silu`, g / (1 + e^−g), or `gelu_tanh`, the Gaussian error linear unit by its approximation
 * with a hyperbolic tangent, g/2 · (1 + tanh(√(2/π) · (g + 0.044715 g³))) (Hendrycks and Gimpel, 2016).
 */
export type Activation = "silu" | "gelu_tanh";

/** Operands of the gate. */
export interface Swiglu {
  /** f32 [rows, 2 · width]: gate, then up */
  readonly gateUp: Tensor;
  /** [rows, width], in any form; as digits only where the adapter has subgroups of at least eight. */
  readonly out: Rows<ProductForm>;
  readonly rows: number;
  /** A multiple of 4, of 32 as digits. */
  readonly width: number;
  /** @default "silu" */
  readonly activation?: Activation;
}

const THREADS = 64;

/**
 * Computes out = activation(gate) · up.
 * @throws {GpuError} `invalid_shape` when a tensor does not fit or `width` is not such a multiple
 */
export function swiglu(commands: Commands, { gateUp, out, rows, width, activation = "silu" }: Swiglu): void {
  const multiple = out.form === "digits" ? GROUP : 4;
  if (width % multiple !== 0) {
    throw new GpuError("invalid_shape", `Cannot dispatch swiglu: width ${width} is not a multiple of ${multiple}`);
  }
  expectTensor("swiglu", gateUp, "f32", [rows, 2 * width]);
  expectRows("swiglu", out, { rows, cols: width });
  const { tensor, form } = out;
  commands.dispatch(commands.kernel(`swiglu ${activation} ${form}`, () => spec(activation, form)), {
    tensors: [gateUp, tensor],
    params: { count: rows * width / 4, quads: width / 4 },
    groups: spread(Math.ceil(rows * width / 4 / THREADS)),
  });
}

/** Both are gate / (1 + e^−z): 1 + tanh(u) is 2 / (1 + e^−2u). */
const EXPONENT: Readonly<Record<Activation, string>> = {
  silu: "gate",
  "gelu_tanh": `gate * (${2 * Math.sqrt(2 / Math.PI)} + ${2 * Math.sqrt(2 / Math.PI) * 0.044715} * gate * gate)`,
};

/** WGSL of `gated(gate, up)`: activation(gate) · up. */
export function gateWgsl(activation: Activation): string {
  return `fn gated(gate: vec4<f32>, up: vec4<f32>) -> vec4<f32> {
        // Bounded: e^88 is where f32 ends, and WGSL may assume no infinities.
        return gate / (1.0 + exp(min(-(${EXPONENT[activation]}), vec4<f32>(80.0)))) * up;
      }`;
}

function spec(activation: Activation, form: ProductForm): KernelSpec {
  const isDigits = form === "digits";
  return {
    ...(isDigits && { needs: ["subgroups"] }),
    bindings: [
      reads("gate_up", "array<vec4<f32>>"),
      isDigits ? writes("out", "array<u32>") : writesRows("out", form),
    ],
    params: [["count", "u32"], ["quads", "u32"]],
    source: `
      ${isDigits ? DIGITS_WGSL : ROW_FORM_WGSL}
      ${gateWgsl(activation)}
      @compute @workgroup_size(${THREADS}) fn main(${BUILTINS}) {
        let own = (${GROUP_INDEX}) * ${THREADS}u + t;
        let exists = own < params.count;
        ${isDigits ? "" : "if (!exists) { return; }"}
        let i = min(own, params.count - 1u);
        let row = i / params.quads;
        ${store(form)}
      }`,
  };
}

function store(form: ProductForm): string {
  const value = "gated(gate_up[i + row * params.quads], gate_up[i + (row + 1u) * params.quads])";
  if (form !== "digits") return storeFour(form, "out", { value, at: "i" });
  const lanes = `${DIGIT_LANES}u`;
  const place = { row: "row", group: `i % params.quads / ${lanes}`, groups: `params.quads / ${lanes}` };
  return storeDigits("out", { value, lane: `own % ${lanes}`, place, exists: "exists" });
}
