/** From the name of a model to a path on this machine: from the cache, or from the hub into the cache. */

import { join } from "node:path";
import { chooseFiles } from "./choose_files.ts";
import { download, type DownloadOptions } from "./download.ts";
import { HubClient, type HubFile } from "./hub_client.ts";
import { type HubConfig, hubConfig } from "./hub_config.ts";
import { HubError } from "./hub_error.ts";
import { type HubName, parseHubName } from "./hub_name.ts";
import { RepositoryCache } from "./hub_cache.ts";
import { UsageError } from "../errors.ts";
import { fileExists } from "../host/file_exists.ts";

/** How a model is pulled. */
export interface PullOptions {
  /** @default what the environment says */
  readonly config?: HubConfig;
  /** @param bytes of all files that are here now @param total bytes of all files */
  readonly onProgress?: (bytes: number, total: number) => void;
  readonly pauseMs?: DownloadOptions["pauseMs"];
  readonly silenceMs?: number;
}

/**
 * Fetches what is missing of a model's newest commit, file after file.
 * @returns the path for `--model`
 * @throws {HubError} `hub_unreachable`, `hub_refused`, `hub_corrupt`, `cache_unwritable`
 */
export async function pull(name: HubName, options: PullOptions = {}): Promise<string> {
  const config = options.config ?? await hubConfig();
  const { repository } = name;
  if (config.offline) throw new HubError("hub_unreachable", `Cannot pull ${repository}: HF_HUB_OFFLINE is set`);
  const client = new HubClient(config);
  const cache = new RepositoryCache(config.cache, repository);
  const { commit, files } = await client.list(repository);
  const { paths, model } = chooseFiles(name, files.map(({ path }) => path));
  const chosen = files.filter(({ path }) => paths.includes(path));
  const total = chosen.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  for (const file of chosen) {
    const onProgress = (bytes: number) => options.onProgress?.(done + bytes, total);
    await keeping(
      config.cache,
      file.path,
      fetchFile({ client, cache, repository, commit }, file, { ...options, onProgress }),
    );
    done += file.bytes;
    options.onProgress?.(done, total);
  }
  // Only now: a model that is here in part is not found.
  await keeping(config.cache, repository, cache.setNewest(commit));
  return join(cache.snapshot(commit), model);
}

/**
 * The path of a model: itself when it is one, else that of a name, pulled when it is not here.
 * @throws {UsageError} when it is neither
 * @throws {HubError} as above
 */
export async function localModel(model: string, options: PullOptions = {}): Promise<string> {
  if (await fileExists(model)) return model;
  const name = parseHubName(model);
  if (name === undefined) {
    throw new UsageError(`Cannot find model ${model}: no such file or directory, nor a name of the hub (org/model)`);
  }
  const config = options.config ?? await hubConfig();
  const found = await new RepositoryCache(config.cache, name.repository).find(name);
  return found ?? await pull(name, { ...options, config });
}

/**
 * What the file system refuses is an operator's problem and no bug: a full disk, a missing folder, no right to write
 * there.
 */
async function keeping(cache: string, what: string, work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    const isRefused = error instanceof Deno.errors.NotCapable ||
      (error instanceof Error && "code" in error && String(error.code).startsWith("E"));
    if (!isRefused) throw error;
    throw new HubError("cache_unwritable", `Cannot keep ${what} in ${cache} (HF_HOME): ${error.message}`, {
      cause: error,
    });
  }
}

async function fetchFile(
  { client, cache, repository, commit }: {
    readonly client: HubClient;
    readonly cache: RepositoryCache;
    readonly repository: string;
    readonly commit: string;
  },
  file: HubFile,
  { onProgress, pauseMs, silenceMs }: PullOptions & { readonly onProgress: (bytes: number) => void },
): Promise<void> {
  const { path, hash } = file;
  const target = cache.blob(hash.hex);
  if (!await fileExists(target)) {
    await download({
      file,
      target,
      open: (from) => client.open(repository, commit, { path, from }),
      onProgress,
      ...(pauseMs && { pauseMs }),
      ...(silenceMs !== undefined && { silenceMs }),
    });
  }
  await cache.link(commit, path, hash.hex);
}
