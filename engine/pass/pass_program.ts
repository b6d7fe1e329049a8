/**
 * A batch through the layers. Decode batches of a worker that is alone follow a program, which is recorded once for all
 * batches of the same shape, and so do dense ones of a group whose sequences are all copied; where a group exchanges between
 * layers, or chunks of a prompt differ each time, the layer loop records each time. Bits are the same either way.
 */

import type { RowRange } from "../../kernels/attention/row_blocks.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { ALONE } from "../exchange.ts";
import type { RowBatch, RowRun } from "../row_batch.ts";
import { forward } from "./forward.ts";
import type { Pass } from "./pass.ts";
import { scoreStride } from "./selection_buffers.ts";

/** Fewer dispatches are not worth a submit of their own before the rest is recorded. */
const MIN_SPLIT_DISPATCHES = 128;

/**
 * Submits of a longer program: the GPU computes a share of the layers while the next is recorded. With one submit in all,
 * steps that no other step runs ahead of took 14.6 ms instead of 9.2 on an H100 (8B shape, sparse, Dawn).
 */
const SUBMITS = 8;

/** Whether a batch follows a program: nothing is waited for between its layers. */
function isRecorded({ model: { exchange }, batch: { product, sparse }, rowCopies }: Pass): boolean {
  if (product === "tiled") return false;
  return exchange === ALONE || (rowCopies?.views !== undefined && sparse.length === 0);
}

/**
 * Runs a batch through all layers.
 * @param options.at of its inputs in the step's state
 * @param options.early whether the GPU has nothing else to do, so that each share of the layers is submitted at once
 * @returns the residual rows that this worker computes, before the final norm, f32 [computed, hidden]
 */
export async function runPass(
  pass: Pass,
  { at, early }: { readonly at: number; readonly early: boolean },
): Promise<Tensor> {
  if (!isRecorded(pass)) return await forward(pass, (layer) => pass.afterLayer(layer));
  const { commands } = pass.model;
  const key = `pass ${at} ${pass.counter.at} ${pass.report.shapeOf(pass.batch)} ${shapeOf(pass.batch)}${
    copiesShapeOf(pass)
  }`;
  const program = await commands.program(key, async (endSection) => {
    await forward(pass, endSection);
  });
  const { sections, dispatches } = program;
  const together = early && dispatches >= MIN_SPLIT_DISPATCHES ? Math.ceil(sections.length / SUBMITS) : sections.length;
  for (let section = 0; section < sections.length; section++) {
    commands.replay(program, section);
    if ((section + 1) % together === 0) commands.submit();
    await pass.pace();
  }
  return pass.x;
}

/** What the dispatches of a batch depend on. */
function shapeOf({ product, rows, runs, carries }: RowBatch): string {
  return `${product} ${rows} ${carries} ${runs.map(runShapeOf).join(";")}`;
}

/** The same of where its sequences are copied. */
function copiesShapeOf({ rowCopies, batch: { holders } }: Pass): string {
  return rowCopies === undefined ? "" : ` copied ${rowCopies.longest} ${rowCopies.maxPages} ${holders}`;
}

function runShapeOf({ first, rows, longest, kept, sparse, blocks, lengths }: RowRun): string {
  const selection = sparse &&
    `${sparse.heads} ${scoreStride(kept)} ${sparse.coverage !== undefined}`;
  const ranges = (of: readonly RowRange[]) => of.map(({ first, rows }) => `${first}+${rows}`).join();
  const longests = lengths.map((range) => range.longest).join();
  return `${first}+${rows} ${longest} ${selection} ${ranges(blocks)} ${ranges(lengths)} ${longests}`;
}
