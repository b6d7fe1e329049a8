/**
 * A worker process for `bench`: what sessions driven by hand run on, with the wire between them as in service.
 * Knows how to start and end a group of one; knows nothing of what is measured.
 */

import type { StepRunner } from "../../engine/session.ts";
import { Gpu } from "../../kernels/gpu.ts";
import type { ModelSource } from "../../workers/engine_host.ts";
import { EMBEDDED_MODEL } from "../config.ts";
import { RequestError } from "../errors.ts";
import type { ModelFacts } from "../group.ts";
import { Launcher } from "../launcher.ts";
import type { KvTokens } from "../worker_config.ts";
import { WorkerGroup } from "../worker_group.ts";

/** A loaded worker; `close` ends its process. */
export interface BenchWorker extends StepRunner {
  readonly facts: ModelFacts;
  /** Median latency of a small read-back from an idle queue on this adapter. */
  readonly readBackMs: number;
  close(): Promise<void>;
}

/** The flags that choose a model. */
export interface BenchModel {
  readonly model: string | undefined;
  readonly random: string | undefined;
  readonly kvTokens: readonly KvTokens[];
}

const READ_BACKS = 101;

/** @throws {RequestError} `group_unavailable` with the worker's reason when it cannot load the model */
export async function openBenchWorker(flags: BenchModel, onProgress: (fraction: number) => void): Promise<BenchWorker> {
  const readBackMs = await measureReadBack();
  const model: ModelSource = flags.random === undefined
    ? { directory: flags.model ?? EMBEDDED_MODEL }
    : { random: flags.random };
  const lines: string[] = [];
  const launcher = new Launcher({ entry: new URL("../../mod.ts", import.meta.url), log: (line) => lines.push(line) });
  const group = new WorkerGroup({
    launch: () => launcher.launch(),
    load: { model, kvTokens: flags.kvTokens[0] ?? "auto" },
    modelId: flags.random ?? (flags.model ?? EMBEDDED_MODEL).replace(/.*\//, ""),
    log: (line) => lines.push(line),
  });
  try {
    const facts = await loaded(group, onProgress);
    return { facts, readBackMs, run: (step) => group.run(step, []), close: () => group.close() };
  } catch (error) {
    await group.close();
    throw error;
  }
}

function loaded(group: WorkerGroup, onProgress: (fraction: number) => void): Promise<ModelFacts> {
  const { promise, resolve, reject } = Promise.withResolvers<ModelFacts>();
  group.onState((state) => {
    if (state.kind === "loading") onProgress(state.progress);
    if (state.kind === "ready") resolve(state.model);
    if (state.kind === "broken") {
      reject(new RequestError("group_unavailable", `Cannot measure: ${state.reason}`));
    }
  });
  return promise;
}

async function measureReadBack(): Promise<number> {
  const gpu = await Gpu.open();
  try {
    const tensor = gpu.tensor("read back", "u32", [4]);
    const times: number[] = [];
    for (let i = 0; i < READ_BACKS; i++) {
      const start = performance.now();
      await gpu.read([{ tensor }]);
      times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[READ_BACKS >> 1] ?? 0;
  } finally {
    await gpu.close();
  }
}
