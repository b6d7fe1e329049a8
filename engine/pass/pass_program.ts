/**
 * A batch through the layers. Decode batches of a worker that is alone follow a program, which is recorded once for all
 * batches of the same shape, and so do those that one worker computes for its group. Where all workers compute a batch whose
 * sequences are all copied, dense rows follow one program, sparse ones several, from one choice of the group to the next. Where
 * a group exchanges between layers, or chunks of a prompt differ each time, the layer loop records each time. Bits are the same
 * either way.
 */

import type { RowRange } from "../../kernels/attention/row_blocks.ts";
import type { Program } from "../../kernels/pipeline.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { ALONE } from "../exchange.ts";
import type { RowBatch, RowRun } from "../row_batch.ts";
import { attendLayer, completeLayer, embedTokens, forward } from "./forward.ts";
import { mergedStates } from "./key_attention.ts";
import type { Pass, PassLayer } from "./pass.ts";
import { isChoosing, offerSelection } from "./selection.ts";
import { scoreStride, wholeLongest } from "./selection_buffers.ts";

/** Fewer dispatches are not worth a submit of their own before the rest is recorded. */
const MIN_SPLIT_DISPATCHES = 128;

/**
 * Submits of a longer program: the GPU computes a share of the layers while the next is recorded. With one submit in all,
 * steps that no other step runs ahead of took 14.6 ms instead of 9.2 on an H100 (8B shape, sparse, Dawn).
 */
const SUBMITS = 8;

/** How a batch is recorded: as one program, as several with choices of the group between them, or each time. */
function recordingOf(
  { model: { exchange }, batch, keyCopies, rowCopies }: Pass,
): "program" | "programs" | "loop" {
  if (batch.product === "tiled") return "loop";
  if (exchange === ALONE || keyCopies !== undefined) return "program";
  if (rowCopies?.views === undefined || batch.replicated) return "loop";
  return batch.sparse.length === 0 ? "program" : "programs";
}

/** How a pass is run. */
export interface PassRun {
  /** Of its inputs in the step's state. */
  readonly at: number;
  /** Whether the GPU has nothing else to do, so that each share of the layers is submitted at once. */
  readonly early: boolean;
}

/**
 * Runs a batch through all layers.
 * @returns the residual rows that this worker computes, before the final norm, f32 [computed, hidden]
 */
export async function runPass(pass: Pass, run: PassRun): Promise<Tensor> {
  const recording = recordingOf(pass);
  if (recording === "loop") return await forward(pass, (layer) => pass.afterLayer(layer));
  const { commands } = pass.model;
  const key = `pass ${run.at} ${pass.counter.at} ${pass.report.shapeOf(pass.batch)} ${shapeOf(pass.batch)}` +
    copiesShapeOf(pass);
  if (recording === "programs") return await runBetweenChoices(pass, { ...run, key });
  const program = await commands.program(key, async (endSection) => {
    await forward(pass, endSection);
  });
  await replay(pass, program, run);
  return pass.x;
}

/** The layers up to a choice are a program, what is left of the layer that chooses is one, and so are those after it. */
async function runBetweenChoices(pass: Pass, { key, ...run }: PassRun & { readonly key: string }): Promise<Tensor> {
  const { commands } = pass.model;
  for (let first = 0; first < pass.layers.length;) {
    const next = pass.layers.findIndex((layer) => layer.index >= first && isChoosing(pass, layer));
    const choosing = pass.layers[next];
    const layers = pass.layers.slice(first, choosing?.index);
    // What was chosen says which slices sparse layers read.
    const holders = pass.holdersAt({ role: "sparse" });
    const until = await commands.program(`${key} ${holders} from layer ${first}`, async (endSection) => {
      if (first === 0) embedTokens(pass);
      await attendUntil(pass, layers, { choosing, endSection });
    });
    await replay(pass, until, run);
    if (choosing === undefined) break;
    const choice = await offerSelection(pass, choosing);
    const complete = await commands.program(`${key} rest of layer ${choosing.index}`, () => {
      completeLayer(pass, choosing, mergedStates(pass, choosing));
    });
    await replay(pass, complete, run);
    await choice?.adopt();
    first = choosing.index + 1;
  }
  return pass.x;
}

/** Whole layers, and the attention of the one that chooses next. */
async function attendUntil(
  pass: Pass,
  layers: readonly PassLayer[],
  { choosing, endSection }: { readonly choosing: PassLayer | undefined; readonly endSection: () => void },
): Promise<void> {
  for (const layer of layers) {
    completeLayer(pass, layer, await attendLayer(pass, layer));
    endSection();
  }
  if (choosing !== undefined) await attendLayer(pass, choosing);
}

async function replay(pass: Pass, program: Program, { early }: PassRun): Promise<void> {
  const { commands } = pass.model;
  const { sections, dispatches } = program;
  const together = dispatches >= MIN_SPLIT_DISPATCHES ? Math.ceil(sections.length / SUBMITS) : sections.length;
  for (let section = 0; section < sections.length; section++) {
    commands.replay(program, section);
    // While the GPU computes the step before, the layers wait for the draws: each submit costs the host as much as ten dispatches.
    if (early && (section + 1) % together === 0) commands.submit();
    await pass.pace();
  }
}

/** What the dispatches of a batch depend on. */
function shapeOf({ product, rows, runs, carries }: RowBatch): string {
  return `${product} ${rows} ${carries} ${runs.map(runShapeOf).join(";")}`;
}

/** The same of where its sequences are copied. */
function copiesShapeOf({ keyCopies, rowCopies, batch }: Pass): string {
  const { holders, runs, pieces } = batch;
  const budgets = runs.map(({ sparse }) => sparse?.budget ?? 0);
  if (keyCopies !== undefined) {
    const { longest, pages, views, batch } = keyCopies;
    const widths = views.map(({ maxPages }) => maxPages);
    return ` whole ${batch} ${pieces.length} ${longest} ${
      wholeLongest({ pieces })
    } ${pages.maxPages} ${widths} ${holders} ${budgets}`;
  }
  return rowCopies === undefined ? "" : ` copied ${rowCopies.longest} ${rowCopies.maxPages} ${holders} ${budgets}`;
}

function runShapeOf({ first, rows, longest, kept, sparse, blocks, lengths }: RowRun): string {
  const selection = sparse &&
    `${sparse.heads} ${scoreStride(kept)} ${sparse.coverage !== undefined}`;
  const ranges = (of: readonly RowRange[]) => of.map(({ first, rows }) => `${first}+${rows}`).join();
  const longests = lengths.map((range) => range.longest).join();
  return `${first}+${rows} ${longest} ${selection} ${ranges(blocks)} ${ranges(lengths)} ${longests}`;
}
