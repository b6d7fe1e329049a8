/**
 * Where the numbers of weights come from, as `weights.ts` asks for them, and one such source: a random stream. Knows names,
 * shapes and types; knows nothing of what a tensor is for.
 */

import type { Commands } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { columnsMultiple, type QuantizedDType, type WeightDType } from "../../kernels/weights/format.ts";
import { randomWeight } from "../../kernels/weights/random_weight.ts";
import { createWeight, type Weight } from "../../kernels/weights/weight.ts";

/** Rows of each of the named matrices, and the columns they share. */
export interface StackShape {
  readonly rows: readonly number[];
  readonly cols: number;
  /** Whether it is the embedding or the head, which quantising to four bits hurts most: it gets eight. @default false */
  readonly isTable?: boolean;
}

/** What a model's weights are made from. */
export interface WeightSource {
  /** One matrix: the rows of the named ones, one after the other. It may be filled while the next one is asked for. */
  matrix(names: readonly string[], shape: StackShape): Promise<Weight>;
  /** One vector, f32: the named ones, one after the other. @param offset added to what files have. @default 0 */
  vector(names: readonly string[], lengths: readonly number[], offset?: number): Promise<Tensor>;
}

/** Numbers of a scale that keeps activations bounded; the same in every run. */
export class RandomSource implements WeightSource {
  readonly #commands: Commands;
  readonly #quantize: QuantizedDType | undefined;
  #nextSeed: number;

  constructor(
    commands: Commands,
    { seed, quantize }: { readonly seed: number; readonly quantize?: QuantizedDType | undefined },
  ) {
    this.#commands = commands;
    this.#nextSeed = seed;
    this.#quantize = quantize;
  }

  async matrix(names: readonly string[], { rows, cols, isTable = false }: StackShape): Promise<Weight> {
    const { gpu } = this.#commands;
    const dtype: WeightDType = quantizedTo(this.#quantize, { cols, isTable }) ?? "f16";
    const shape = { rows: rows.reduce((a, b) => a + b, 0), cols, dtype };
    const weight = createWeight(gpu, names.join(" + "), shape);
    // A deviation of 1/√cols keeps the variance of a normalised row through a product.
    randomWeight(this.#commands, weight, { seed: this.#nextSeed++, deviation: 1 / Math.sqrt(cols) });
    this.#commands.submit();
    await gpu.settle();
    return weight;
  }

  async vector(names: readonly string[], lengths: readonly number[]): Promise<Tensor> {
    const { gpu } = this.#commands;
    const tensor = gpu.tensor(names.join(" + "), "f32", [lengths.reduce((a, b) => a + b, 0)]);
    gpu.write(tensor, new Float32Array(tensor.byteLength / 4).fill(1));
    await gpu.check();
    return tensor;
  }
}

/** What a plain matrix becomes; undefined: it stays plain, as rows that are no whole blocks do. */
export function quantizedTo(
  quantize: QuantizedDType | undefined,
  { cols, isTable }: { readonly cols: number; readonly isTable: boolean },
): QuantizedDType | undefined {
  if (quantize === undefined) return undefined;
  const dtype = isTable && quantize === "q4" ? "q8" : quantize;
  return cols % columnsMultiple(dtype) === 0 ? dtype : undefined;
}
