/**
 * What a spawned worker may do, as flags of Deno: talk to this host, read its model and the program's own modules, which its threads
 * are started from, ask how much memory there is, and keep one file of its own. It may neither write other files nor start programs, so a flaw in what parses weights or frames
 * cannot do so either.
 */

import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { ModelSource } from "../../engine/engine.ts";
import { workerFiles } from "../../engine/model/checkpoint.ts";

/**
 * The flags for a worker on this host.
 * @param extra of whatever opens its GPU, such as `--allow-ffi`
 */
export function workerPermissions(
  model: ModelSource,
  extra: readonly string[] = [],
  env: (name: string) => string | undefined = (name) => Deno.env.get(name),
): readonly string[] {
  const tiles = tileCachePath(env);
  const readable = [
    ...("directory" in model ? workerFiles(model.directory) : []),
    ...(tiles === undefined ? [] : [tiles]),
    ...THREAD_MODULES,
  ];
  return [
    "--no-prompt",
    // The router and the other workers of this host; both ends of every connection.
    "--allow-net=127.0.0.1",
    `--allow-read=${readable.map(escaped).join(",")}`,
    ...(tiles === undefined ? [] : [`--allow-write=${escaped(tiles)}`]),
    // Vulkan's loader and OpenTelemetry are configured by it, and each flag has a variable.
    "--allow-env",
    "--allow-sys=systemMemoryInfo",
    ...extra,
  ];
}

/** What the modules of a worker's threads are read from: Deno asks for it again for each thread. */
const THREAD_MODULES = ["kernels", "engine", "workers"].map((room) =>
  fileURLToPath(new URL(`../../${room}`, import.meta.url))
);

/** Dawn is native code: the flag that lets it be loaded, and no other than what lies among Deno's npm packages. */
export function packagePermission(
  env: (name: string) => string | undefined = (name) => Deno.env.get(name),
  os: string = Deno.build.os,
): string {
  return `--allow-ffi=${escaped(join(resolved(denoFolder(env, os)), "npm"))}`;
}

/** Deno compares the path of what it loads without its links. */
function resolved(folder: string): string {
  try {
    return Deno.realPathSync(folder);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return folder;
    throw error;
  }
}

/** Where Deno keeps what it downloads. */
function denoFolder(env: (name: string) => string | undefined, os: string): string {
  const own = env("DENO_DIR");
  if (own) return resolve(own);
  if (os === "windows") return join(env("LOCALAPPDATA") ?? "", "deno");
  const home = env("HOME") ?? "";
  return os === "darwin"
    ? join(home, "Library/Caches/deno")
    : join(env("XDG_CACHE_HOME") || join(home, ".cache"), "deno");
}

/**
 * The file in which workers keep what they measured of this machine's GPUs; undefined: the environment names no place.
 * In the cache folder itself, so that it can be named in a permission before it exists.
 */
export function tileCachePath(
  env: (name: string) => string | undefined = (name) => Deno.env.get(name),
): string | undefined {
  const home = env("HOME");
  const folder = env("XDG_CACHE_HOME") || (home ? join(home, ".cache") : undefined);
  return folder === undefined ? undefined : join(resolve(folder), "tidepool-tiles.json");
}

/** In a list of paths a comma is written twice. */
function escaped(path: string): string {
  return path.replaceAll(",", ",,");
}
