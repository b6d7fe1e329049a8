/**
 * Which model an operator wants and how its weights are kept: the flags of every command that loads one, and what they
 * mean together. Knows names; opens no file.
 */

import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import type { ModelSource } from "../engine/engine.ts";
import { QUANTIZED_DTYPES, type QuantizedDType } from "../kernels/weights/format.ts";
import type { Flags } from "./command.ts";
import { UsageError } from "./errors.ts";
import { localModel } from "./hub/pull.ts";
import { SLICE_FLAGS } from "./host/worker_config.ts";

/** The model that comes with Tidepool. */
export const EMBEDDED_MODEL = fileURLToPath(new URL("../deploy/models/tide-10m", import.meta.url));

/** The flag of every command that loads weights. */
export const QUANTIZE_FLAG = {
  quantize: {
    kind: "choice",
    choices: QUANTIZED_DTYPES,
    help: "quantise f16, bf16 or f32 weights while loading: q8 or q4; the other formats are for random weights only",
  },
} as const satisfies Flags;

/** Flags that choose a model and how much of it a worker holds, for every command that starts workers. */
export const MODEL_FLAGS = {
  model: {
    kind: "text",
    value: "MODEL",
    help: "directory, .gguf file, or org/model[:quant] of the Hugging Face hub (default: the embedded tide-10m)",
  },
  random: { kind: "text", value: "SHAPE", help: "random weights of a named shape instead, e.g. llama-3-8b" },
  ...QUANTIZE_FLAG,
  context: {
    kind: "integer",
    min: 64,
    max: 2 ** 28,
    or: "auto",
    default: "auto",
    help: "longest context in tokens; must fit. auto: the longest that the model supports and the KV cache holds",
  },
  ...SLICE_FLAGS,
} as const satisfies Flags;

/**
 * What `--model`, `--random` and `--quantize` mean together.
 * @throws {UsageError} when both of the first are given, or files cannot become what the last says
 */
export function modelSource(choice: {
  readonly model?: string | undefined;
  readonly random?: string | undefined;
  readonly quantize?: QuantizedDType | undefined;
  readonly context?: number | "auto" | undefined;
}): ModelSource {
  const { model, random, quantize, context = "auto" } = choice;
  const kept = { ...(quantize && { quantize }), ...(context !== "auto" && { contextTokens: context }) };
  if (random === undefined) {
    if (quantize !== undefined && quantize !== "q8" && quantize !== "q4") {
      throw new UsageError(`Cannot quantize a model: must be q8 or q4 without --random, given ${quantize}`);
    }
    return { directory: model ?? EMBEDDED_MODEL, ...kept };
  }
  if (model === undefined) return { random, ...kept };
  throw new UsageError(
    `Cannot choose a model: either a directory or a random shape, given "${model}" and "${random}"`,
  );
}

/**
 * The same choice with a path for a name of the hub, `org/model[:quant]`, which is pulled when it is not here.
 * @throws {HubError} when that fails
 */
export async function withLocalModel<Choice extends { readonly model?: string | undefined }>(
  choice: Choice,
  onProgress: (fraction: number) => void,
): Promise<Choice> {
  if (choice.model === undefined) return choice;
  const model = await localModel(choice.model, {
    onProgress: (bytes, total) => onProgress(total === 0 ? 1 : bytes / total),
  });
  return { ...choice, model };
}

/** The default name of a model: its directory, its file without its ending, or its shape. */
export function nameOf(model: ModelSource): string {
  return "directory" in model ? basename(model.directory, ".gguf") : model.random;
}
