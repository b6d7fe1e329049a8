/** What a model is, read from its files without loading it: for `doctor --model`. */

import { needsOf } from "../../engine/fit.ts";
import { readCalibration } from "../../engine/model/calibration.ts";
import { openTensors } from "../../engine/model/checkpoint.ts";
import { type ModelConfig, readModelConfig } from "../../engine/model/model_config.ts";
import type { TensorFiles } from "../../engine/model/tensor_files.ts";
import { ChatTemplate } from "../../engine/text/chat_template.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";
import type { QuantizedDType } from "../../kernels/weights/format.ts";
import type { ToolFormatName } from "../answer/answer_part.ts";
import { formatOfTemplate } from "../answer/tool_formats.ts";

/** What was found; part of `doctor --json`. */
export interface ModelDiagnosis {
  readonly path: string;
  readonly family: string;
  readonly layers: number;
  readonly parameters: number;
  /** Tensors of each type in the files. */
  readonly types: Readonly<Record<string, number>>;
  readonly weightBytes: number;
  /** What matrices are kept as, those of the most bytes first. */
  readonly weightTypes: readonly string[];
  readonly workingBytes: number;
  readonly kvBytesPerToken: number;
  readonly maxPositions: number;
  readonly vocabulary: { readonly tokens: number; readonly rows: number };
  readonly hasChatTemplate: boolean;
  /** How its chat template writes tool calls; undefined: it does not. */
  readonly toolFormat: ToolFormatName | undefined;
  /** Which rows its layers see; undefined: everything before them. */
  readonly window: { readonly positions: number; readonly layers: number } | undefined;
  /** Undefined without a calibration. */
  readonly selectLayers: readonly number[] | undefined;
  /** What the model cannot do for want of a file or a field. */
  readonly missing: readonly string[];
}

/**
 * Reads a model's files, but not its weights.
 * @throws {EngineError} `invalid_model`, `unsupported_model` naming what is wrong
 */
export async function diagnoseModel(path: string, quantize: QuantizedDType | undefined): Promise<ModelDiagnosis> {
  const config = await readModelConfig(path);
  using files = await openTensors(path);
  const calibration = await readCalibration(path, config.layers);
  const template = await ChatTemplate.load(path);
  const tokenizer = await Tokenizer.load(path);
  return {
    path,
    family: config.architecture,
    layers: config.layers,
    parameters: elementsOf(files),
    types: typesOf(files),
    ...needsOf({ config, tensors: files.tensors, quantize }),
    maxPositions: config.maxPositions,
    vocabulary: { tokens: tokenizer.vocabSize, rows: config.vocabSize },
    hasChatTemplate: template !== undefined,
    toolFormat: template && formatOfTemplate(template.forTools.source),
    window: windowOf(config),
    selectLayers: calibration?.selectLayers,
    missing: [
      ...(template === undefined ? ["a chat template: /v1/chat/completions will refuse"] : []),
      ...(calibration === undefined ? [lackOfCalibration(config)] : []),
      ...(config.eosTokens.length === 0 ? ["a token that ends answers: they end at max_tokens or a stop string"] : []),
    ],
  };
}

/** Lines of a report: name and value. */
export function describeModel(found: ModelDiagnosis): readonly (readonly [string, string])[] {
  const types = Object.entries(found.types).map(([type, count]) => `${count} × ${type}`).join(", ");
  return [
    ["Model", `${found.path}`],
    ["Family", `${found.family}, ${found.layers} layers, ${(found.parameters / 1e6).toFixed(1)} million parameters`],
    ["Tensors", types],
    [
      "Memory",
      `weights ${mebibytes(found.weightBytes)} in ${found.weightTypes.join(" and ")}, ` +
      `working memory ${mebibytes(found.workingBytes)}, ` +
      `${Math.round(found.kvBytesPerToken / 1024)} KiB a token of context, at most ${
        found.maxPositions.toLocaleString("en")
      }`,
    ],
    ["Vocabulary", `${found.vocabulary.tokens} tokens, ${found.vocabulary.rows} rows`],
    ["Chat template", found.hasChatTemplate ? "yes" : "none"],
    [
      "Tool calls",
      found.toolFormat ?? "the template has no place for tools: they are described to the model, in Hermes' form",
    ],
    [
      "Window",
      found.window === undefined
        ? "none"
        : `${
          found.window.positions.toLocaleString("en")
        } positions in ${found.window.layers} of ${found.layers} layers`,
    ],
    ["Select layers", found.selectLayers === undefined ? "none: not calibrated" : found.selectLayers.join(", ")],
    ...found.missing.map((what) => ["Missing", what] as const),
  ];
}

function windowOf({ layers, slidingWindow, localLayers }: ModelConfig): ModelDiagnosis["window"] {
  if (slidingWindow !== undefined) return { positions: slidingWindow, layers };
  return localLayers && {
    positions: localLayers.window,
    layers: localLayers.isLocal.filter((isLocal) => isLocal).length,
  };
}

function lackOfCalibration({ localLayers }: ModelConfig): string {
  const why = localLayers === undefined
    ? "a calibration (tidepool.json)"
    : "sparse attention, as only some layers have a window";
  return `${why}: every token attends densely`;
}

function elementsOf({ tensors }: TensorFiles): number {
  return [...tensors.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

function typesOf({ tensors }: TensorFiles): Record<string, number> {
  const types: Record<string, number> = {};
  for (const { dtype } of tensors.values()) types[dtype] = (types[dtype] ?? 0) + 1;
  return types;
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20).toLocaleString("en")} MiB`;
}
