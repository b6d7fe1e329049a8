/**
 * A group of real workers with engines of a tiny random model, in this process: everything of a group but its processes.
 * Knows how to put it together; the test that opens one closes it.
 */

import { Engine } from "../../engine/engine.ts";
import { GpuError } from "../../kernels/errors.ts";
import { fixedMembership } from "../../router/group/membership/membership.ts";
import { WorkerGroup } from "../../router/group/worker_group.ts";
import type { LateMasks, Step, StepResult } from "../../engine/span.ts";
import type { WorkerSource } from "../../router/group/worker_source.ts";
import { hostEngine, type WorkerEngine } from "../../workers/engine_host.ts";
import { runWorker } from "../../workers/worker.ts";
import { settleMaps } from "./engine_fixture.ts";
import { PATIENT, RESTARTS } from "./group_stage.ts";
import { testProvider } from "./test_provider.ts";

/** For a step that compiles its kernels first, on a busy machine. */
const STEP_MS = 60_000;

/** Gives each step the time to compile: workers of a service have done that before they are asked. */
class PatientGroup extends WorkerGroup {
  override run(step: Step, traceparents: readonly string[], late?: LateMasks): Promise<StepResult> {
    return super.run({ ...step, deadlineMs: STEP_MS }, traceparents, late);
  }
}

/** See the top of this file. */
export class EngineWorkers {
  readonly group: WorkerGroup;
  readonly #workers = new Set<Promise<unknown>>();
  #losesNext = false;

  /** @param kvTokens of each worker's slice */
  constructor(kvTokens: readonly number[]) {
    this.group = new PatientGroup({
      membership: fixedMembership(
        kvTokens.map((tokens) => ({
          source: this.#source(),
          load: { model: { random: "tiny" }, kvTokens: tokens, replicas: kvTokens.length > 1 },
        })),
      ),
      modelId: "tiny",
      log: () => {},
      patience: PATIENT,
      restarts: RESTARTS,
    });
  }

  /** The first worker that takes the next step gives up on it. */
  loseNextStep(): void {
    this.#losesNext = true;
  }

  /** Waits until every worker has ended. */
  async close(): Promise<void> {
    await Promise.all(this.#workers);
  }

  #source(): WorkerSource {
    return {
      start: async () => {
        const listening = Promise.withResolvers<{ readonly hostname: string; readonly port: number }>();
        const worker = runWorker({
          open: (load) => this.#open(load),
          spawned: false,
          log: () => {},
          onListen: listening.resolve,
        });
        this.#workers.add(worker);
        return {
          address: await listening.promise,
          secret: undefined,
          lastWords: undefined,
          endsWithin: () => worker.then(() => true),
          stop: () => worker.then(() => {}),
        };
      },
      returns: false,
    };
  }

  async #open({ model, kvTokens, replicas = false }: Parameters<Parameters<typeof runWorker>[0]["open"]>[0]) {
    const engine = await Engine.open({ model, kvTokens, replicas, gpu: testProvider().name });
    const { memory, keyBytes } = hostEngine(engine);
    const hosted: WorkerEngine = {
      info: engine.info,
      join: (membership) => engine.join(membership),
      close: async () => {
        await settleMaps(engine);
        await engine.close();
      },
      run: (step) => {
        if (!this.#losesNext) return engine.run(step);
        this.#losesNext = false;
        throw new GpuError("device_lost", "Cannot run step: the device is lost");
      },
    };
    return { engine: hosted, memory, keyBytes };
  }
}
