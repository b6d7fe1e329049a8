/**
 * One step, once it was checked: its state uploaded, its batches through the layers, the rows whose logits are wanted to
 * the lead, and from there to the answer.
 */

import { at } from "../../kernels/at.ts";
import type { ReadRequest, StagedRead } from "../../kernels/gpu.ts";
import type { HeldCommands } from "../../kernels/submit_queue.ts";
import { rowProductCut } from "../../kernels/products/row_tile.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { SequenceState } from "../kv/sequences.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { planDraw } from "../logits/draw_plan.ts";
import { placesOf } from "../logits/drawn_tokens.ts";
import { copyRows } from "../logits/head.ts";
import { lacksMasks, writeLateMasks } from "../logits/late_masks.ts";
import { Draws } from "../logits/sampler.ts";
import type { RowBatch } from "../row_batch.ts";
import type { LateMasks, ReplicaCount, SequenceId, SpanResult, Step, StepResult } from "../span.ts";
import { type ExchangePoint, LEAD } from "../exchange.ts";
import { planBatches } from "./batch_plan.ts";
import { packedKeys, receiveKeys } from "./key_exchange.ts";
import { UnsentKeys } from "./key_places.ts";
import { Pass } from "./pass.ts";
import { inputsOf, placeInputs } from "./pass_inputs.ts";
import { runPass } from "./pass_program.ts";
import { ReadCounter } from "./read_counter.ts";
import { runBatches } from "./run_batches.ts";
import { ownerOfRow, ownRanges } from "./row_ranges.ts";
import { SelectionReport } from "./selection_report.ts";
import { SpanResults, type WantedRows } from "./span_results.ts";
import { StepState } from "./step_state.ts";
import { joinBefore } from "./step_before.ts";
import { wholeSequences } from "./whole_sequences.ts";

/** What a step continues. */
export interface StepContext {
  /** As they are once the step's sequences are opened and its tokens are known. */
  readonly sequences: ReadonlyMap<SequenceId, SequenceState>;
  /** Places of the tokens that the step before drew last. */
  readonly drawn: ReadonlyMap<SequenceId, number>;
  /** Whether the GPU still computes the step before. */
  isAhead(): boolean;
  /** Waits until that one has its result, or rejects with why it has none. */
  beforeDone(): Promise<void>;
  /** Called where a draw lacks its mask, once everything before the draws is submitted. */
  readonly lateMasks: () => LateMasks;
}

/** A step whose commands are submitted, or held back until the step before has been read. */
export interface SubmittedStep {
  /** Places of the tokens that it draws last. */
  readonly drawn: ReadonlyMap<SequenceId, number>;
  /**
   * Waits for the GPU.
   * @param sinceMs when the step before was done, by `performance.now`: the time of this one counts from there
   * @returns of the lead, what the spans asked for; of other workers, that they have computed
   * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
   */
  finish(sinceMs: number): Promise<StepResult>;
}

/** What the batches of a step leave to be read. */
interface Outcome {
  readonly drawn: ReadonlyMap<SequenceId, number>;
  readonly requests: readonly ReadRequest[];
  /** Keys and values that this worker has computed for the others, in the order of the last requests. */
  readonly keys: readonly ExchangePoint[];
  /** Draws that are held back; undefined: all is submitted. */
  readonly held: HeldCommands | undefined;
  /** How long masks, and the step before them, were waited for. */
  readonly awaitedMs: number;
  readonly replicated: ReplicaCount;
  spans(bytes: readonly Uint8Array<ArrayBuffer>[]): readonly SpanResult[];
}

/**
 * Records and submits all spans of a step; waits for the GPU where it must: for exchanges of a group, and in the course of
 * long spans.
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function submitStep(
  model: LoadedModel,
  step: Step,
  { sequences, drawn, lateMasks, ...before }: StepContext,
): Promise<SubmittedStep> {
  const start = performance.now();
  const { commands, config, share, replicas } = model;
  const maxScores = Math.floor(commands.gpu.info.maxBindingBytes / (4 * config.heads));
  const matrix = rowProductCut(commands.gpu.info) !== undefined;
  const [window, localWindow] = [config.slidingWindow, config.localLayers?.window];
  const whole = wholeSequences(model, step.spans, sequences);
  const spans = await joinBefore(model, step, { whole, sequences, ...before });
  const isAhead = before.isAhead();
  if (isAhead && commands.gpu.traits.readWaitsForAll) commands.hold();
  const context = { sequences, drawn, window, localWindow, maxScores, share, matrix, replicas, whole };
  const batches = planBatches(spans, context);
  const outcome = await record(model, { ...step, spans }, { batches, isAhead, lateMasks });
  const staged = commands.stage(outcome.requests);
  const encoded = performance.now();
  return {
    drawn: outcome.drawn,
    finish: (sinceMs) => finish(model, { step, outcome, staged, sinceMs, start, encoded }),
  };
}

async function record(
  model: LoadedModel,
  step: Step,
  { batches, isAhead, lateMasks }: Pick<StepContext, "lateMasks"> & {
    readonly batches: readonly RowBatch[];
    readonly isAhead: boolean;
  },
): Promise<Outcome> {
  const { commands, scratch, share } = model;
  const state = new StepState();
  const inputs = batches.map((batch) => isElsewhere(model, batch) ? undefined : placeInputs(state, model, batch));
  const drawn = share.index === LEAD ? batches.flatMap(({ drawn }) => drawn) : [];
  const plan = planDraw(model, state, { rows: drawn, step: step.index });
  const draws = new Draws(model, state, plan);
  const counter = new ReadCounter(model, batches);
  const report = new SelectionReport(model, step.spans, batches);
  state.upload(commands, scratch);
  const results = share.index === LEAD ? new SpanResults(model, { spans: step.spans, batches, draws }) : undefined;
  const replicated = { chosen: 0, missing: 0 };
  const unsent = new UnsentKeys();
  const packed: { readonly point: ExchangePoint; readonly request: ReadRequest }[] = [];
  const staying = batches.flatMap(({ pieces }) => pieces);
  const pointOf = (index: number) => ({ step: step.index, batch: index });
  await runBatches(model, batches, {
    run: async (index, progress) => {
      const placed = at(inputs, index);
      if (placed === undefined) throw new RangeError(`Cannot run batch ${index}: another worker computes it`);
      const parts = { counter: counter.of(index), report, inputs: inputsOf(state, placed) };
      const pass = new Pass(model, at(batches, index), { ...pointOf(index), ...progress, ...parts, staying, unsent });
      const x = await runPass(pass, { at: placed.at, early: !isAhead });
      const { keyCopies: keys, batch } = pass;
      if (keys !== undefined && batch.product !== "tiled") {
        packed.push({ point: pass.pointAt({ index: 0 }), request: packedKeys(model, keys) });
      }
      replicated.chosen += pass.replicated.chosen;
      replicated.missing += pass.replicated.missing;
      return x;
    },
    receive: (index, { progress }) => receiveKeys(model, at(batches, index), { point: pointOf(index), progress }),
    end: async (index, x) => {
      const batch = at(batches, index);
      const wanted = await gatherOnLead(model, batch, { point: pointOf(index), x });
      if (wanted !== undefined) await results?.add(batch, wanted);
    },
  });
  await unsent.sent();
  const keys = packed.map(({ point }) => point);
  if (results === undefined) {
    const spans = step.spans.map(({ sequence }) => ({ sequence }));
    // Which sequences are drawn for is the same on all workers.
    const drawn = new Map(batches.flatMap(({ drawn }) => drawn.map(({ sequence: { open } }) => [open.sequence, 0])));
    return { drawn, requests: [], keys, held: undefined, awaitedMs: 0, replicated, spans: () => spans };
  }
  let held: HeldCommands | undefined;
  let awaitedMs = 0;
  if (lacksMasks(plan)) {
    commands.submit();
    const askedMs = performance.now();
    const masks = await lateMasks();
    awaitedMs = performance.now() - askedMs;
    writeLateMasks(model, state, { plan, masks });
    // Software drivers return from a submit when the one before it is computed; until then the next step is recorded.
    if (step.followed && commands.gpu.traits.readWaitsForAll) held = commands.hold();
  }
  await results.draw();
  return {
    drawn: placesOf(plan),
    requests: [...results.requests({ counter, report }), ...packed.map(({ request }) => request)],
    keys,
    held,
    awaitedMs,
    replicated,
    spans: (bytes) => results.finish({ counter, report }, bytes),
  };
}

async function finish(
  { commands, exchange }: LoadedModel,
  { step, outcome, staged, sinceMs, start, encoded }: {
    readonly step: Step;
    readonly outcome: Outcome;
    readonly staged: StagedRead;
    readonly sinceMs: number;
    readonly start: number;
    readonly encoded: number;
  },
): Promise<StepResult> {
  if (outcome.held !== undefined) commands.release(outcome.held);
  const bytes = await commands.gpu.finishRead(staged);
  const end = performance.now();
  const { replicated, awaitedMs, keys } = outcome;
  const own = bytes.splice(bytes.length - keys.length);
  for (const [i, point] of keys.entries()) await exchange.sendKeys(point, at(own, i));
  const timing = {
    encodeMs: encoded - start - awaitedMs,
    waitMs: end - Math.max(sinceMs, encoded),
    totalMs: end - Math.max(sinceMs, start),
    ...(replicated.chosen > 0 && { replicas: replicated }),
  };
  return { index: step.index, spans: outcome.spans(bytes), timing };
}

/** Whether another worker computes all of a batch. */
function isElsewhere({ share }: LoadedModel, { computer }: RowBatch): boolean {
  return computer !== undefined && computer !== share.index;
}

/**
 * Brings rows whose logits are wanted to the lead; rows that it has computed all are there already.
 * @param input.x rows that this worker has computed; undefined: none
 * @returns undefined where the lead has all, and this worker has none
 */
async function gatherOnLead(
  model: LoadedModel,
  { ranges = [], computer, drawn, scored }: RowBatch,
  { point, x }: { readonly point: Omit<ExchangePoint, "layer">; readonly x: Tensor | undefined },
): Promise<WantedRows | undefined> {
  if (ranges.length === 0 || computer === LEAD) {
    return x && { x, drawn: drawn.map(({ row }) => row), scored: scored.map(({ row }) => row) };
  }
  const { commands, scratch, config, share, exchange } = model;
  const rows = [...drawn, ...scored].map(({ row }) => row);
  const gathered = scratch.take("rows for the lead", "f32", [rows.length, config.hidden]);
  const own = ownRanges(ranges, share.index);
  for (const [firstRow, row] of rows.entries()) {
    const range = own.find(({ first, rows: count }) => row >= first && row < first + count);
    if (range !== undefined && x !== undefined) {
      copyRows(model, { from: x, to: gathered, rows: [range.at + row - range.first], firstRow });
    }
  }
  const owners = rows.map((row) => ownerOfRow(ranges, row));
  commands.submit();
  const rowBytes = config.hidden * 4;
  await exchange.gatherOnLead({ ...point, layer: config.layers }, owners, { tensor: gathered, rowBytes });
  return { x: gathered, drawn: drawn.map((_, i) => i), scored: scored.map((_, i) => drawn.length + i) };
}
