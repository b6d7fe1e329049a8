/**
 * The cache that all of Hugging Face's tools share: `models--org--name/` with `blobs/` by hash, `refs/main` with a commit,
 * and `snapshots/<commit>/` with links. Knows its layout; asks no network.
 */

import { dirname, join, relative } from "node:path";
import { ggufPaths } from "../../engine/model/gguf/gguf_files.ts";
import { chooseFiles } from "./choose_files.ts";
import { HubError } from "./hub_error.ts";
import type { HubName } from "./hub_name.ts";

/** The folders of one repository. */
export class RepositoryCache {
  readonly #folder: string;

  constructor(cache: string, repository: string) {
    this.#folder = join(cache, `models--${repository.replace("/", "--")}`);
  }

  /** Where a file's content lies. */
  blob(hex: string): string {
    return join(this.#folder, "blobs", hex);
  }

  /** Where a commit's files lie under their names. */
  snapshot(commit: string): string {
    return join(this.#folder, "snapshots", commit);
  }

  /** Gives a blob its name in a commit. */
  async link(commit: string, path: string, hex: string): Promise<void> {
    const link = join(this.snapshot(commit), path);
    await Deno.mkdir(dirname(link), { recursive: true });
    const target = relative(dirname(link), this.blob(hex));
    try {
      await Deno.symlink(target, link);
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
  }

  /** Makes a commit the newest that is here. */
  async setNewest(commit: string): Promise<void> {
    await Deno.mkdir(join(this.#folder, "refs"), { recursive: true });
    await Deno.writeTextFile(join(this.#folder, "refs", "main"), commit);
  }

  /** The path for `--model` of a model that is here with all its files; undefined when it is not. */
  async find(name: HubName): Promise<string | undefined> {
    const commit = await textOf(join(this.#folder, "refs", "main"));
    if (commit === undefined) return undefined;
    const snapshot = this.snapshot(commit.trim());
    try {
      const { model } = chooseFiles(name, await namesIn(snapshot));
      return await isComplete(snapshot, model) ? join(snapshot, model) : undefined;
    } catch (error) {
      if (error instanceof HubError) return undefined;
      throw error;
    }
  }
}

/** Whether every part of a split model, or every file that an index names, is there. */
async function isComplete(snapshot: string, model: string): Promise<boolean> {
  if (model !== "") {
    const found = await Promise.all(ggufPaths(join(snapshot, model)).map(isFile));
    return found.every(Boolean);
  }
  const index = await textOf(join(snapshot, "model.safetensors.index.json"));
  if (index === undefined) return true;
  const found = await Promise.all(filesOf(index).map((file) => isFile(join(snapshot, file))));
  return found.every(Boolean);
}

/** The files that an index names; none of a damaged one, whose reader says what is wrong with it. */
function filesOf(index: string): readonly string[] {
  try {
    const { weight_map: map = {} } = JSON.parse(index) as { weight_map?: Record<string, string> };
    return [...new Set(Object.values(map))];
  } catch (error) {
    if (error instanceof SyntaxError) return [];
    throw error;
  }
}

/** Files that are there, with those of one level of folders; a link to nothing is not there. */
async function namesIn(folder: string, within = ""): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(join(folder, within))) {
      if (isDirectory && within === "") names.push(...await namesIn(folder, name));
      else if (await isFile(join(folder, within, name))) names.push(within === "" ? name : `${within}/${name}`);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function textOf(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
