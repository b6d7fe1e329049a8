/**
 * One step, once it was checked: its batches through the layers, the rows whose logits are wanted to the lead, and from
 * there to the answer.
 */

import { rowProductCut } from "../../kernels/products/row_product.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { SequenceState } from "../kv/sequences.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { copyRows } from "../logits/sampler.ts";
import type { SequenceId, Step, StepResult } from "../span.ts";
import { planBatches } from "./batch_plan.ts";
import { forward } from "./forward.ts";
import { Pass } from "./pass.ts";
import { ReadCounter } from "./read_counter.ts";
import { ownerOfRow, ownRanges } from "./row_ranges.ts";
import { SelectionReport } from "./selection_report.ts";
import { SpanResults, type WantedRows } from "./span_results.ts";

/** The worker that draws tokens. */
const LEAD = 0;

/**
 * Runs all spans of a step, and waits for the GPU.
 * @param sequences as they are once the step's sequences are opened and its tokens are known
 * @returns of the lead, what the spans asked for; of other workers, that they have computed
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function runStep(
  model: LoadedModel,
  step: Step,
  sequences: ReadonlyMap<SequenceId, SequenceState>,
): Promise<StepResult> {
  const start = performance.now();
  const { commands, config, share } = model;
  const maxScores = Math.floor(commands.gpu.info.maxBindingBytes / (4 * config.heads));
  const matrix = rowProductCut(commands.gpu.info) !== undefined;
  const batches = planBatches(step.spans, { sequences, window: config.slidingWindow, maxScores, share, matrix });
  const counter = new ReadCounter(model, batches);
  const report = new SelectionReport(model, step.spans, batches);
  const results = share.index === LEAD ? new SpanResults(model, step.spans, batches) : undefined;
  for (const [index, batch] of batches.entries()) {
    const pass = new Pass(model, batch, { step: step.index, batch: index, counter: counter.of(index), report });
    const wanted = await gatherOnLead(pass, await forward(pass));
    await results?.add(batch, wanted);
  }
  commands.submit();
  const encoded = performance.now();
  const spans = results === undefined ? await computedOnly(model, step) : await results.finish(counter, report);
  const end = performance.now();
  const timing = { encodeMs: encoded - start, waitMs: end - encoded, totalMs: end - start };
  return { index: step.index, spans, timing };
}

/** What a worker that is not the lead answers. */
async function computedOnly({ commands }: LoadedModel, step: Step): Promise<StepResult["spans"]> {
  await commands.gpu.read([]);
  return step.spans.map(({ sequence }) => ({ sequence }));
}

/** Brings rows whose logits are wanted to the lead; rows that every worker computes are there already. */
async function gatherOnLead(pass: Pass, x: Tensor): Promise<WantedRows> {
  const { model, batch: { ranges, drawn, scored } } = pass;
  if (ranges === undefined) return { x, drawn: drawn.map(({ row }) => row), scored: scored.map(({ row }) => row) };
  const { commands, scratch, config, share, exchange } = model;
  const rows = [...drawn, ...scored].map(({ row }) => row);
  const gathered = scratch.take("rows for the lead", "f32", [rows.length, config.hidden]);
  const own = ownRanges(ranges, share.index);
  for (const [at, row] of rows.entries()) {
    const range = own.find(({ first, rows: count }) => row >= first && row < first + count);
    if (range !== undefined) copyRows(model, { from: x, to: gathered, rows: [range.at + row - range.first], at });
  }
  const owners = rows.map((row) => ownerOfRow(ranges, row));
  commands.submit();
  const rowBytes = config.hidden * 4;
  await exchange.gatherOnLead(pass.pointAt({ index: config.layers }), owners, { tensor: gathered, rowBytes });
  return { x: gathered, drawn: drawn.map((_, i) => i), scored: scored.map((_, i) => drawn.length + i) };
}
