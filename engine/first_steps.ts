/**
 * What a model does before it serves: kernels compiled, tiles chosen, steps of each kind run. One by one, kernels for matrix units
 * take half a minute on a fresh machine; so they are asked for before anything runs, where the provider compiles several at a time.
 */

import { recordTiles } from "../kernels/products/tune_tiles.ts";
import type { Weight } from "../kernels/weights/weight.ts";
import type { MeasuredStep } from "./engine_info.ts";
import type { LoadedModel } from "./loaded_model.ts";
import { measureTiles, recallTiles, type TileCache } from "./tile_cache.ts";

/** Runs steps of each kind and reports how long they took. */
export type RunSteps = () => Promise<readonly MeasuredStep[]>;

/**
 * @returns what the steps took, once all was there
 * @throws {GpuError} `shader_error`, `device_lost`, `out_of_gpu_memory`
 */
export async function runFirstSteps(
  { commands, weights, pacers }: Pick<LoadedModel, "commands" | "weights" | "pacers">,
  run: RunSteps,
  tileCache: TileCache,
): Promise<readonly MeasuredStep[]> {
  const products: readonly Weight[] = weights.layers.flatMap((layer) => [
    layer.qkv,
    layer.output,
    layer.gateUp,
    layer.down,
  ]);
  const known = await recallTiles(commands, tileCache);
  if (commands.gpu.traits.compilesInParallel) {
    await commands.kernels.compileAhead(async () => {
      recordTiles(commands, products);
      await run();
    });
    commands.dropPrograms();
    for (const pacer of Object.values(pacers)) pacer.forget();
  }
  await measureTiles(commands, products, { ...tileCache, known });
  return await run();
}
