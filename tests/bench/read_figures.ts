/** What `bench:all` left in a folder: the figures of each phase that ended, or got far enough to write any. */

import { type BenchFile, readBenchFile } from "../../router/commands/bench/compare.ts";
import { fileExists } from "../../router/host/file_exists.ts";
import type { KernelFigures } from "../kernels/kernel_timing.ts";
import type { LoadingFigures } from "./loading.ts";
import type { PeerResult } from "./llama_cpp.ts";

/** What `bench:peer --json` writes. */
export interface PeerFile {
  readonly readGigabytesPerSecond?: number;
  readonly results: readonly (PeerResult & { readonly type: string })[];
}

/** What `bench:kernels --json` writes. */
export interface KernelFile {
  readonly adapter: string;
  readonly kernels: readonly KernelFigures[];
}

/** By the names of the phases. */
export interface AllFigures {
  readonly bench: Readonly<Record<string, BenchFile | undefined>>;
  readonly peers: Readonly<Record<string, PeerFile | undefined>>;
  readonly kernels: Readonly<Record<string, KernelFile | undefined>>;
  readonly loading: LoadingFigures | undefined;
  /** The cards of phases, where they were named. */
  readonly cards: Readonly<Record<string, string | undefined>>;
}

const BENCHES = ["decode", "profile", "q4", "q8", "q4k", "embedded", "embedded_deno", "decode_deno", "mha"] as const;
const PEERS = ["peer", "peer_q4", "peer_q8"] as const;
const KERNELS = ["kernels", "kernels_deno"] as const;

/** The card that a file of figures was measured on; undefined where it was not named. */
async function cardOf(figures: string): Promise<string | undefined> {
  return await whereThere(figures.replace(/\.json$/, ".card"), (path) => Deno.readTextFile(path));
}

/** Reads a folder; what is not there is undefined. */
export async function readFigures(directory: string): Promise<AllFigures> {
  const path = (name: string) => `${directory}/${name}.json`;
  const each = async <File>(names: readonly string[], read: (path: string) => Promise<File>) =>
    Object.fromEntries(
      await Promise.all(names.map(async (name) => [name, await whereThere(path(name), read)] as const)),
    );
  return {
    bench: await each(BENCHES, readBenchFile),
    peers: await each(PEERS, (path) => readJson<PeerFile>(path)),
    kernels: await each(KERNELS, (path) => readJson<KernelFile>(path)),
    loading: await whereThere(path("loading"), (path) => readJson<LoadingFigures>(path)),
    cards: Object.fromEntries(
      await Promise.all(
        [...BENCHES, ...PEERS, ...KERNELS, "loading"].map(async (name) =>
          [name, await whereThere(path(name), (figures) => cardOf(figures))] as const
        ),
      ),
    ),
  };
}

async function whereThere<File>(path: string, read: (path: string) => Promise<File>): Promise<File | undefined> {
  return await fileExists(path) ? await read(path) : undefined;
}

async function readJson<File>(path: string): Promise<File> {
  return JSON.parse(await Deno.readTextFile(path));
}
