/** What the comparison with llama.cpp prints: speeds, and the share of the memory's bandwidth that they amount to. */

import { layerRoles, rowsRead } from "../../engine/layer_plan.ts";
import { needsOf } from "../../engine/fit.ts";
import type { Preset } from "../../engine/model/presets.ts";
import { BLOCKS, isBlockType } from "../../kernels/weights/source_types.ts";
import { weightBytes } from "../../kernels/weights/format.ts";
import type { BenchFile } from "../../router/commands/bench/compare.ts";
import type { PeerResult } from "./llama_cpp.ts";
import type { MatrixType } from "./random_gguf.ts";

/** Both sides with weights of one type. */
export interface Compared {
  readonly type: MatrixType;
  /** Undefined: llama.cpp was measured alone. */
  readonly ours: BenchFile | undefined;
  readonly peer: PeerResult;
}

/** The heads of the columns of `rowsOf`. */
export const COLUMNS = [
  "weights",
  "context",
  "prefill tokens/s",
  "llama.cpp",
  "decode dense tokens/s",
  "share",
  "decode sparse",
  "share",
  "llama.cpp",
  "share",
] as const;

/** @throws {RangeError} for a type that no random file can be made of */
export function matrixTypeNamed(name: string): MatrixType {
  const type = name.toUpperCase();
  if (type === "F16") return type;
  const block = (Object.keys(BLOCKS) as (keyof typeof BLOCKS)[]).find((known) => known === type);
  if (block !== undefined) return block;
  const known = ["f16", ...Object.keys(BLOCKS).map((known) => known.toLowerCase())].join(", ");
  throw new RangeError(`Cannot compare ${name}: types must be among ${known}`);
}

/** A row of the table for each context. @param ceiling GB/s of streaming reads */
export function rowsOf({ type, ours, peer }: Compared, preset: Preset, ceiling: number | undefined): string[][] {
  const speeds = new Map((ours?.named ?? []).map(({ name, value }) => [name, value]));
  return peer.figures.map(({ context, prefillTokensPerSecond, decodeTokensPerSecond }) => {
    const own = (what: string) => speeds.get(`1 worker, ${context}: ${what} tokens/s`);
    const speed = (tokensPerSecond: number | undefined, attention: "dense" | "sparse") => {
      if (tokensPerSecond === undefined) return ["–", "–"];
      const share = ceiling === undefined
        ? undefined
        : tokensPerSecond * bytesOfToken(preset, { type, context, attention }) / (ceiling * 1e9);
      return [tokensPerSecond.toFixed(1), share === undefined ? "–" : `${(100 * share).toFixed(0)} %`];
    };
    return [
      ...[type.toLowerCase(), String(context)],
      ...[own("prefill")?.toFixed(0) ?? "–", prefillTokensPerSecond.toFixed(0)],
      ...speed(own("decode dense"), "dense"),
      ...speed(own("decode sparse"), "sparse"),
      ...speed(decodeTokensPerSecond, "dense"),
    ];
  });
}

interface CountedToken {
  readonly type: MatrixType;
  readonly context: number;
  readonly attention: "dense" | "sparse";
}

/** Bytes that a decoded token reads at least: all weights but the embedding, and the keys and values that it attends to. */
function bytesOfToken({ config, calibration }: Preset, { type, context, attention }: CountedToken): number {
  const quantize = isBlockType(type) ? BLOCKS[type].keptAs : undefined;
  const { weightBytes: all, kvBytesPerToken } = needsOf({ config, tensors: undefined, quantize });
  const table = quantize === "q4" ? "q8" : quantize ?? "f16";
  const embedding = config.tiedEmbeddings ? 0 : weightBytes(table, config.vocabSize * config.hidden);
  const { layers } = config;
  const rows = attention === "dense"
    ? layers * context
    : rowsRead(layerRoles(layers, calibration.selectLayers), calibration.budget, context - 1);
  return all - embedding + rows * kvBytesPerToken / layers;
}
