/**
 * The batches of a step through the layers: one after the other, but several at a time where the keys and values of their rows
 * travel, so that some are computed while what others send is on its way. Knows batches; knows nothing of what a pass does.
 */

import type { LoadedModel } from "../loaded_model.ts";
import type { RowBatch } from "../row_batch.ts";
import { canTakeKeyCopies } from "./key_copies.ts";
import type { Pass } from "./pass.ts";

/** Batches that are under way at a time: an exchange of 512 rows' keys took 5 ms on two H200, what is computed of them in a layer 2. */
const MAX_IN_FLIGHT = 4;

/** What is asked of a pass. */
type AnyPass = Pick<Pass, "batch" | "keyCopies" | "progress">;

/** What is done with each batch. */
export interface BatchWork<OwnPass extends AnyPass, Rows> {
  /** @param beside those under way that its rows see, in order */
  begin(index: number, beside: readonly OwnPass[]): { readonly pass: OwnPass; run(): Promise<Rows> };
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
      if (!canFollow(model, batch, inFlight)) {
        for (const { ended } of inFlight) await ended;
        inFlight.length = 0;
      }
      inFlight.push(start(index, inFlight, work));
    }
    for (const { ended } of inFlight) await ended;
  } finally {
    await Promise.allSettled(inFlight.map(({ ended }) => ended));
  }
}

/** Whether a batch need not wait for the end of those before it: it waits for their keys and values, layer by layer. */
function canFollow(
  model: Pick<LoadedModel, "replicas" | "config">,
  batch: RowBatch,
  inFlight: readonly BatchInFlight<AnyPass>[],
): boolean {
  if (inFlight.some(({ pass }) => pass.keyCopies === undefined)) return false;
  return canTakeKeyCopies(
    model,
    batch,
    [...inFlight.map(({ pass }) => pass.batch), batch].flatMap(({ pieces }) => pieces),
  );
}

function start<OwnPass extends AnyPass, Rows>(
  index: number,
  inFlight: readonly BatchInFlight<OwnPass>[],
  work: BatchWork<OwnPass, Rows>,
): BatchInFlight<OwnPass> {
  const before = inFlight.at(-1);
  const { pass, run } = work.begin(index, inFlight.map(({ pass }) => pass));
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
  // A failure is reported where the end is awaited.
  ended.catch(() => {});
  return { pass, ended };
}
