/**
 * Measured choices of tiles, kept in a file from start to start: by adapter, for all models. What is missing is measured;
 * what cannot be read or kept is measured again at the next start. Knows a file; `tune_tiles.ts` measures.
 */

import { messageOf } from "../kernels/errors.ts";
import type { Commands } from "../kernels/pipeline.ts";
import { describeShape } from "../kernels/provider.ts";
import type { TileSize } from "../kernels/products/tile_choice.ts";
import { tuneTiles } from "../kernels/products/tune_tiles.ts";
import type { Weight } from "../kernels/weights/weight.ts";
import { JsonObject } from "./model/json_file.ts";
import { fileExists } from "./model/model_file.ts";

/** Changes with the kernels that are chosen from: older choices are measured again. */
const VERSION = 3;

/** Far above what all models of a machine need. */
const MAX_BYTES = 1 << 20;

/** By adapter, then by key of the choice. */
export type Choices = Record<string, Record<string, TileSize>>;

/** Where choices are kept, and who is notified. */
export interface TileCache {
  /** Undefined: nowhere. */
  readonly path: string | undefined;
  readonly log: (line: string) => void;
}

/** Takes the choices that were kept for this adapter. @returns those of all adapters */
export async function recallTiles(commands: Commands, { path, log }: TileCache): Promise<Choices> {
  // Its kernels have no tiles to choose from.
  if (path === undefined || commands.gpu.info.software) return {};
  const known = await readChoices(path, log);
  for (const [key, size] of Object.entries(known[adapterOf(commands)] ?? {})) commands.tiles.set(key, size);
  return known;
}

/**
 * Chooses the tiles of products that have none yet by measuring, and keeps all choices.
 * @param known what was recalled
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function measureTiles(
  commands: Commands,
  products: readonly Weight[],
  { known, path, log }: TileCache & { readonly known: Choices },
): Promise<void> {
  if (commands.gpu.info.software) return;
  const start = performance.now();
  const measured = await tuneTiles(commands, products);
  if (measured === 0) return;
  log(`Measured ${measured} choices of tiles in ${Math.round(performance.now() - start)} ms`);
  if (path !== undefined) {
    await keepChoices(path, { ...known, [adapterOf(commands)]: { ...commands.tiles.entries } }, log);
  }
}

function adapterOf({ gpu: { info } }: Commands): string {
  return [info.provider, info.adapter, ...info.matrix.slice(0, 1).map(describeShape)].join(", ");
}

/** What a file holds; nothing where there is none, or none that can be used. */
export async function readChoices(path: string, log: (line: string) => void): Promise<Choices> {
  try {
    return await fileExists(path) ? choicesIn(await JsonObject.read(path, MAX_BYTES)) : {};
  } catch (error) {
    log(`Cannot use the tiles in ${path}: ${messageOf(error)}`);
    return {};
  }
}

/** Writes a file; a failure is reported, and the next start measures again. */
export async function keepChoices(path: string, adapters: Choices, log: (line: string) => void): Promise<void> {
  try {
    await Deno.writeTextFile(path, JSON.stringify({ version: VERSION, adapters }, undefined, 1));
  } catch (error) {
    log(`Cannot keep the tiles in ${path}: ${messageOf(error)}`);
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
