/**
 * Measured choices of tiles, kept in a file from start to start: by adapter, for all models. What is missing is measured;
 * what cannot be read or kept is measured again at the next start. Knows a file; `tune_tiles.ts` measures.
 */

import type { Commands } from "../kernels/pipeline.ts";
import { describeShape } from "../kernels/provider.ts";
import type { TileSize } from "../kernels/products/tile_choice.ts";
import { tuneTiles } from "../kernels/products/tune_tiles.ts";
import { JsonObject } from "./model/json_file.ts";
import { fileExists } from "./model/model_file.ts";
import type { Weights } from "./model/weights.ts";

/** Changes with the kernels that are chosen from: older choices are measured again. */
const VERSION = 2;

/** Far above what all models of a machine need. */
const MAX_BYTES = 1 << 20;

/** By adapter, then by key of the choice. */
type Choices = Record<string, Record<string, TileSize>>;

/** Where choices are kept and who is told about it. */
export interface TileCache {
  /** Undefined: nowhere. */
  readonly path: string | undefined;
  readonly log: (line: string) => void;
}

/**
 * Chooses the tiles of a model's products, from the file or by measuring.
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function chooseTiles(commands: Commands, weights: Weights, { path, log }: TileCache): Promise<void> {
  const { info } = commands.gpu;
  // Its kernels have no tiles to choose from.
  if (info.software) return;
  const adapter = [info.provider, info.adapter, ...info.matrix.slice(0, 1).map(describeShape)].join(", ");
  const known = path === undefined ? {} : await readChoices(path, log);
  for (const [key, size] of Object.entries(known[adapter] ?? {})) commands.tiles.set(key, size);
  const products = weights.layers.flatMap(({ qkv, output, gateUp, down }) => [qkv, output, gateUp, down]);
  const start = performance.now();
  const measured = await tuneTiles(commands, products);
  if (measured === 0) return;
  log(`Measured ${measured} choices of tiles in ${Math.round(performance.now() - start)} ms`);
  if (path !== undefined) await keepChoices(path, { ...known, [adapter]: { ...commands.tiles.entries } }, log);
}

/** What a file holds; nothing where there is none, or none that can be used. */
export async function readChoices(path: string, log: (line: string) => void): Promise<Choices> {
  try {
    return await fileExists(path) ? choicesIn(await JsonObject.read(path, MAX_BYTES)) : {};
  } catch (error) {
    log(`Cannot use the tiles in ${path}: ${reasonOf(error)}`);
    return {};
  }
}

/** Writes a file; a failure is said and costs the next start the measuring. */
export async function keepChoices(path: string, adapters: Choices, log: (line: string) => void): Promise<void> {
  try {
    await Deno.writeTextFile(path, JSON.stringify({ version: VERSION, adapters }, undefined, 1));
  } catch (error) {
    log(`Cannot keep the tiles in ${path}: ${reasonOf(error)}`);
  }
}

/** @throws {EngineError} `invalid_model` when it is not what `keepChoices` writes */
function choicesIn(file: JsonObject): Choices {
  file.integer("version", { min: VERSION, max: VERSION });
  const adapters = file.object("adapters");
  if (adapters === undefined) throw file.invalid("adapters", "choices by adapter");
  return Object.fromEntries(Array.from(adapters.entries(), ([adapter, sizes]) => {
    const choices = adapters.nested(sizes, adapter);
    return [
      adapter,
      Object.fromEntries(Array.from(choices.entries(), ([key, size]) => {
        if (size !== "small" && size !== "large") throw choices.invalid(key, "small or large");
        return [key, size];
      })),
    ];
  }));
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
