/**
 * The batches of a step through the layers: one after the other, and where workers compute chunks of prompts for each other, each its
 * own at the same time, while it takes in what the others send of theirs. A chunk waits in every layer only for the keys and values
 * of chunks before it, which their workers sent when they were there themselves. Rows that decode come after them: their keys and
 * values leave when the whole step is read, and nothing else may be recorded while a program of theirs is. Knows batches; knows
 * nothing of what a pass does.
 */

import { at } from "../../kernels/at.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import { PassProgress } from "./pass_progress.ts";

/** How far batches are whose rows others see. */
interface BatchProgress {
  /** Of the batch itself. */
  readonly progress: PassProgress;
  /** Of those before it that other batches wait for. */
  readonly earlier: readonly PassProgress[];
}

/** What is done with each batch. */
export interface BatchWork<Rows> {
  /** Computes what this worker computes of it. */
  run(index: number, progress: BatchProgress): Promise<Rows>;
  /** Takes the keys and values of a batch that another worker computes. */
  receive(index: number, progress: BatchProgress): Promise<void>;
  /** Takes what `run` gave for a batch, when the batches before it have ended; undefined where another worker has computed it. */
  end(index: number, rows: Rows | undefined): Promise<void>;
}

/**
 * Runs all batches.
 * @throws what the first that failed has thrown, once no batch is under way any more
 */
export async function runBatches<Rows>(
  { share: { index: own, map }, config }: Pick<LoadedModel, "share" | "config">,
  batches: readonly RowBatch[],
  work: BatchWork<Rows>,
): Promise<void> {
  const progress = batches.map(() => new PassProgress(config.layers));
  const ended = batches.map(() => Promise.withResolvers<void>());
  const runOne = async (index: number) => {
    const { computer = own } = at(batches, index);
    const each = { progress: at(progress, index), earlier: earlierOf(batches, index).map((i) => at(progress, i)) };
    const rows = computer === own ? await work.run(index, each) : undefined;
    if (computer !== own) await work.receive(index, each);
    if (index > 0) await ended[index - 1]?.promise;
    await work.end(index, rows);
    ended[index]?.resolve();
  };
  const order = [...batches.keys()];
  const dealt = order.filter((index) => isDealt(at(batches, index)));
  const [begin = batches.length] = dealt;
  for (const index of order.slice(0, begin)) await runOne(index);
  const lanes = Array.from({ length: map.workers }, async (_, worker) => {
    try {
      for (const index of dealt) if (at(batches, index).computer === worker) await runOne(index);
    } catch (error) {
      // Those on other workers end at the step's deadline, or with the group.
      for (const one of progress) one.fail(error);
      for (const { promise, reject } of ended) {
        promise.catch(() => {});
        reject(error);
      }
      throw error;
    }
  });
  try {
    await Promise.all(lanes);
  } finally {
    await Promise.allSettled(lanes);
  }
  for (const index of order.slice(begin + dealt.length)) await runOne(index);
}

/** Chunks of prompts, which workers compute for each other at the same time. */
function isDealt({ computer, product }: RowBatch): boolean {
  return computer !== undefined && product === "tiled";
}

/** Shared batches before one that have rows of the same sequences. */
function earlierOf(batches: readonly RowBatch[], index: number): readonly number[] {
  const seen = new Set(at(batches, index).pieces.map(({ sequence }) => sequence));
  return [...batches.keys()].filter((i) =>
    i < index && at(batches, i).computer !== undefined &&
    at(batches, i).pieces.some(({ sequence }) => seen.has(sequence))
  );
}
