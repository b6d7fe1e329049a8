/**
 * The commands of a step: its state uploaded, its batches through the layers, the rows whose logits are wanted to the lead, and
 * there the draws. Knows batches; knows nothing of the steps around this one.
 */

import { at } from "../../kernels/at.ts";
import type { ReadRequest } from "../../kernels/gpu.ts";
import type { HeldCommands } from "../../kernels/submit_queue.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { type ExchangePoint, LEAD } from "../exchange.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { type DrawPlan, planDraw } from "../logits/draw_plan.ts";
import { placesOf } from "../logits/drawn_tokens.ts";
import { copyRows } from "../logits/head.ts";
import { lacksMasks, writeLateMasks } from "../logits/late_masks.ts";
import { Draws } from "../logits/sampler.ts";
import type { RowBatch } from "../row_batch.ts";
import type { LateMasks, ReplicaCount, SequenceId, SpanResult, Step } from "../span.ts";
import { packedKeys, receiveKeys } from "./key_exchange.ts";
import { UnsentKeys } from "./key_places.ts";
import { Pass } from "./pass.ts";
import { inputsOf, type PlacedInputs, placeInputs } from "./pass_inputs.ts";
import { runPass } from "./pass_program.ts";
import { ReadCounter } from "./read_counter.ts";
import { runBatches } from "./run_batches.ts";
import { isElsewhere, ownerOfRow, ownRanges } from "./row_ranges.ts";
import { SelectionReport } from "./selection_report.ts";
import { SpanResults, type WantedRows } from "./span_results.ts";
import { StepState } from "./step_state.ts";

/** A step whose commands are recorded, and what of it is to be read. */
export interface RecordedStep {
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

/** How a step is recorded. */
export interface StepRecording {
  readonly batches: readonly RowBatch[];
  /** Whether the GPU still computes the step before. */
  readonly isAhead: boolean;
  /** Called where a draw lacks its mask, once everything before the draws is submitted. */
  readonly lateMasks: () => LateMasks;
}

/**
 * Records all batches of a step, and submits what cannot wait; of a group, waits for what other workers send.
 * @throws {GpuError} `device_lost`, `out_of_gpu_memory`
 */
export async function recordStep(
  model: LoadedModel,
  step: Step,
  { batches, isAhead, lateMasks }: StepRecording,
): Promise<RecordedStep> {
  const parts = prepare(model, step, batches);
  const { packed, replicated } = await runLayers(model, step, { ...parts, isAhead });
  const sent = { keys: packed.map(({ point }) => point), replicated };
  const { results, plan, counter, report } = parts;
  if (results === undefined) return { ...sent, ...recordedByFollower(step, batches) };
  const late = lacksMasks(plan) ? await addMasks(model, step, { ...parts, lateMasks }) : NOT_LATE;
  await results.draw();
  return {
    ...sent,
    ...late,
    drawn: placesOf(plan),
    requests: [...results.requests({ counter, report }), ...packed.map(({ request }) => request)],
    spans: (bytes) => results.finish({ counter, report }, bytes),
  };
}

/** Of draws that lack no masks. */
const NOT_LATE = { held: undefined, awaitedMs: 0 };

/** The parts of a step that its batches write to. */
interface StepParts {
  readonly batches: readonly RowBatch[];
  readonly state: StepState;
  /** Of each batch; undefined: another worker computes it. */
  readonly inputs: readonly (PlacedInputs | undefined)[];
  readonly plan: DrawPlan;
  readonly counter: ReadCounter;
  readonly report: SelectionReport;
  /** Of the lead. */
  readonly results: SpanResults | undefined;
}

/** Plans what the step uploads, and uploads it. */
function prepare(model: LoadedModel, step: Step, batches: readonly RowBatch[]): StepParts {
  const { commands, scratch, share } = model;
  const isLead = share.index === LEAD;
  const state = new StepState();
  const inputs = batches.map((batch) => isElsewhere(share, batch) ? undefined : placeInputs(state, model, batch));
  const rows = isLead ? batches.flatMap(({ drawn }) => drawn) : [];
  const plan = planDraw(model, state, { rows, step: step.index });
  const draws = new Draws(model, state, plan);
  const counter = new ReadCounter(model, batches);
  const report = new SelectionReport(model, step.spans, batches);
  state.upload(commands, scratch);
  const results = isLead ? new SpanResults(model, { spans: step.spans, batches, draws }) : undefined;
  return { batches, state, inputs, plan, counter, report, results };
}

/** Keys and values that this worker has computed for the others, and where these expect them. */
interface PackedKeys {
  readonly point: ExchangePoint;
  readonly request: ReadRequest;
}

/** Takes all batches through the layers, and on the lead their wanted rows into the results. */
async function runLayers(
  model: LoadedModel,
  step: Step,
  { batches, state, inputs, counter, report, results, isAhead }: StepParts & Pick<StepRecording, "isAhead">,
): Promise<{ readonly packed: readonly PackedKeys[]; readonly replicated: ReplicaCount }> {
  const replicated = { chosen: 0, missing: 0 };
  const packed: PackedKeys[] = [];
  const unsent = new UnsentKeys();
  const staying = batches.flatMap(({ pieces }) => pieces);
  const pointOf = (index: number) => ({ step: step.index, batch: index });
  await runBatches(model, batches, {
    run: async (index, progress) => {
      const placed = at(inputs, index);
      if (placed === undefined) throw new RangeError(`Cannot run batch ${index}: another worker computes it`);
      const own = { counter: counter.of(index), report, inputs: inputsOf(state, placed) };
      const pass = new Pass(model, at(batches, index), { ...pointOf(index), ...progress, ...own, staying, unsent });
      const x = await runPass(pass, { at: placed.at, early: !isAhead });
      packed.push(...packedOf(pass));
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
  return { packed, replicated };
}

/** What is read back of a pass for the others; keys and values of tiled batches leave layer by layer. */
function packedOf(pass: Pass): readonly PackedKeys[] {
  const { model, batch, keyCopies } = pass;
  if (keyCopies === undefined || batch.product === "tiled") return [];
  return [{ point: pass.pointAt({ index: 0 }), request: packedKeys(model, keyCopies) }];
}

/** Of a worker that draws nothing: which sequences are drawn for is the same on all. */
function recordedByFollower(step: Step, batches: readonly RowBatch[]): Omit<RecordedStep, "keys" | "replicated"> {
  const spans = step.spans.map(({ sequence }) => ({ sequence }));
  const drawn = new Map(batches.flatMap(({ drawn }) => drawn.map(({ sequence: { open } }) => [open.sequence, 0])));
  return { ...NOT_LATE, drawn, requests: [], spans: () => spans };
}

/** Submits all before the draws, and waits for the masks that they lack. */
async function addMasks(
  model: LoadedModel,
  { followed }: Step,
  { state, plan, lateMasks }: Pick<StepParts, "state" | "plan"> & Pick<StepRecording, "lateMasks">,
): Promise<Pick<RecordedStep, "held" | "awaitedMs">> {
  const { commands } = model;
  commands.submit();
  const askedMs = performance.now();
  const masks = await lateMasks();
  const awaitedMs = performance.now() - askedMs;
  writeLateMasks(model, state, { plan, masks });
  // Software drivers return from a submit when the one before it is computed; until then the next step is recorded.
  const held = followed && commands.gpu.traits.readWaitsForAll ? commands.hold() : undefined;
  return { held, awaitedMs };
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
