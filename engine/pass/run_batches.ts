/**
 * The batches of a step through the layers: one after the other, but two at a time where the keys and values of their rows
 * travel, so that one is computed while what the other sends is on its way. Knows batches; knows nothing of what a pass does.
 */

import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import { canTakeKeyCopies } from "./key_copies.ts";
import type { Pass } from "./pass.ts";

/** Batches that are under way at a time. */
const MAX_IN_FLIGHT = 2;

/** What is asked of a pass. */
type AnyPass = Pick<Pass, "batch" | "keyCopies" | "progress">;

/** What is done with each batch. */
export interface BatchWork<OwnPass extends AnyPass, Rows> {
  /** @param before the one under way that its rows see; undefined: there is none */
  begin(index: number, before: OwnPass | undefined): { readonly pass: OwnPass; run(): Promise<Rows> };
  /** Takes what `run` gave for a batch, when the batches before it have ended. */
  end(pass: OwnPass, rows: Rows): Promise<void>;
}

interface BatchInFlight<OwnPass> {
  readonly pass: OwnPass;
  readonly ended: Promise<void>;
}

/**
 * Runs all batches, in order.
 * @throws what the first that failed has thrown, once no batch is under way any more
 */
export async function runBatches<OwnPass extends AnyPass, Rows>(
  model: Pick<LoadedModel, "replicas" | "config">,
  batches: readonly RowBatch[],
  work: BatchWork<OwnPass, Rows>,
): Promise<void> {
  const inFlight: BatchInFlight<OwnPass>[] = [];
  try {
    for (const [index, batch] of batches.entries()) {
      if (inFlight.length === MAX_IN_FLIGHT) await inFlight.shift()?.ended;
      const before = inFlight.at(-1);
      if (before !== undefined && !canFollow(model, batch, before)) {
        await before.ended;
        inFlight.length = 0;
      }
      inFlight.push(start(index, inFlight.at(-1), work));
    }
    for (const { ended } of inFlight) await ended;
  } finally {
    await Promise.allSettled(inFlight.map(({ ended }) => ended));
  }
}

/** Whether a batch need not wait for the end of the one before: it waits for its keys and values, layer by layer. */
function canFollow(
  model: Pick<LoadedModel, "replicas" | "config">,
  batch: RowBatch,
  { pass }: BatchInFlight<AnyPass>,
): boolean {
  return pass.keyCopies !== undefined && canTakeKeyCopies(model, batch, [...pass.batch.pieces, ...batch.pieces]);
}

function start<OwnPass extends AnyPass, Rows>(
  index: number,
  before: BatchInFlight<OwnPass> | undefined,
  work: BatchWork<OwnPass, Rows>,
): BatchInFlight<OwnPass> {
  const { pass, run } = work.begin(index, before?.pass);
  const ended = (async () => {
    try {
      const rows = await run();
      await before?.ended;
      await work.end(pass, rows);
    } catch (error) {
      pass.progress.fail(error);
      throw error;
    }
  })();
  // Whoever waits for it reports the failure.
  ended.catch(() => {});
  return { pass, ended };
}
