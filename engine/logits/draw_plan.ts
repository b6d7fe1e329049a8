/**
 * What is drawn in a step, and the host's part of it, placed in the step's state before anything is recorded: settings,
 * masks, adjustments, and where the logits of audited rows are kept. Knows rows and settings; records nothing.
 */

import { ADJUSTMENT_WORDS, packAdjustments } from "../../kernels/logits/adjust_logits.ts";
import { maskWords } from "../../kernels/logits/mask_logits.ts";
import { packSampling, SAMPLING_WORDS } from "../../kernels/logits/sample.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { roomFor, type StatePart, type StepState } from "../pass/step_state.ts";
import type { DrawnRow } from "../row_batch.ts";
import { LOGIT_ROWS } from "./head.ts";
import { adjustmentsAt } from "./penalties.ts";

/** Rows of the step that one product of the head serves, at most `LOGIT_ROWS` of them. */
export interface DrawBlock {
  readonly rows: readonly DrawnRow[];
  readonly head: DrawnRow["head"];
  /** Index of the first of them among all drawn rows. */
  readonly first: number;
  /** u32 [rows, SAMPLING_WORDS] */
  readonly sampling: StatePart;
  readonly masked: MaskedRows | undefined;
  /** u32 [count, ADJUSTMENT_WORDS]; filled up with adjustments of no row. */
  readonly adjusted: { readonly table: StatePart; readonly count: number } | undefined;
  /** Rows of the block whose log-probabilities are wanted. */
  readonly raw: readonly number[];
  /** u32 [count, 2]: rows of the block, and where their logits are kept. */
  readonly kept: { readonly places: StatePart; readonly count: number } | undefined;
  /** The same of rows that are compared with what was kept. */
  readonly compared: { readonly places: StatePart; readonly rows: readonly number[] } | undefined;
}

/** Rows of a block that have a mask. */
export interface MaskedRows {
  /** Their indices in the block, u32 [count]. */
  readonly places: StatePart;
  /** u32 [count, maskWords(vocabulary)] */
  readonly masks: StatePart;
  readonly count: number;
  /** What `masks` holds; zeros where masks are late. */
  readonly data: Uint32Array<ArrayBuffer>;
  /** Masks that are late: which of the `count` they are, and whose span's. */
  readonly late: readonly { readonly at: number; readonly span: number }[];
}

/** All draws of a step. */
export interface DrawPlan {
  readonly blocks: readonly DrawBlock[];
  /** Two plans with the same shape make the same dispatches. */
  readonly shape: string;
}

/** Adds what the draws after these rows need to the state of their step. */
export function planDraw(model: LoadedModel, state: StepState, rows: readonly DrawnRow[]): DrawPlan {
  const at = state.words;
  const blocks: DrawBlock[] = [];
  for (let first = 0; first < rows.length;) {
    const some = blockAt(rows, first);
    blocks.push(planBlock(model, state, { rows: some, first }));
    first += some.length;
  }
  return { blocks, shape: `${at} ${blocks.map(shapeOf).join(";")}` };
}

function shapeOf({ rows, head, masked, adjusted, raw, kept, compared }: DrawBlock): string {
  return [
    rows.length,
    head,
    masked?.count,
    adjusted?.count,
    raw.join("+"),
    kept?.count,
    compared?.rows.join("+"),
  ].join();
}

/** The rows from `first` on that one product of the head serves. */
function blockAt(rows: readonly DrawnRow[], first: number): readonly DrawnRow[] {
  const block = rows.slice(first, first + LOGIT_ROWS);
  const end = block.findIndex(({ head }) => head !== block[0]?.head);
  return end < 0 ? block : block.slice(0, end);
}

function planBlock(
  { drafts, config: { vocabSize } }: LoadedModel,
  state: StepState,
  { rows, first }: Pick<DrawBlock, "rows" | "first">,
): DrawBlock {
  const placed = (kind: DrawnRow["audit"]) =>
    rows.flatMap(({ sequence: { open: { sequence } }, position, audit }, row) =>
      audit === kind ? [{ row, sequence, position }] : []
    );
  // Before the comparison frees places: nothing may be kept where something still waits to be compared.
  const kept = drafts.keep(placed("keep"));
  const compared = drafts.compare(placed("compare"));
  return {
    rows,
    head: rows[0]?.head ?? "vector",
    first,
    sampling: placeSampling(state, rows),
    masked: placeMasks(state, rows, vocabSize),
    adjusted: placeAdjustments(state, rows),
    raw: rows.flatMap(({ sequence }, i) => (sequence.open.sampling.topLogprobs === undefined ? [] : [i])),
    kept: kept.length === 0 ? undefined : { places: placePairs(state, "kept places", kept), count: kept.length },
    compared: compared.length === 0
      ? undefined
      : { places: placePairs(state, "compared places", compared), rows: compared.map(({ row }) => row) },
  };
}

function placeSampling(state: StepState, rows: readonly DrawnRow[]): StatePart {
  const data = packSampling(rows.map(({ sequence: { open }, position }) => ({
    ...open.sampling,
    outputIndex: position + 1 - open.promptTokens,
  })));
  const shape = [rows.length, SAMPLING_WORDS];
  return state.add("sampling", { data, shape, room: roomFor(rows.length) * SAMPLING_WORDS });
}

function placeMasks(state: StepState, rows: readonly DrawnRow[], vocabulary: number): DrawBlock["masked"] {
  const masked = rows.flatMap(({ mask, span }, row) => (mask === undefined ? [] : [{ row, span, mask }]));
  if (masked.length === 0) return undefined;
  const words = maskWords(vocabulary);
  const data = new Uint32Array(masked.length * words);
  masked.forEach(({ mask }, i) => mask !== "late" && data.set(mask, i * words));
  const room = roomFor(masked.length);
  return {
    places: state.add("masked rows", { data: Uint32Array.from(masked, ({ row }) => row), room }),
    masks: state.add("masks", { data, shape: [masked.length, words], room: room * words }),
    count: masked.length,
    data,
    late: masked.flatMap(({ mask, span }, at) => (mask === "late" ? [{ at, span }] : [])),
  };
}

function placeAdjustments(state: StepState, rows: readonly DrawnRow[]): DrawBlock["adjusted"] {
  const entries = rows.flatMap(({ sequence, position }, row) =>
    adjustmentsAt(sequence, position).map((adjustment) => ({ row, ...adjustment }))
  );
  if (entries.length === 0) return undefined;
  const count = roomFor(entries.length);
  const data = new Uint32Array(count * ADJUSTMENT_WORDS).fill(NO_ROW);
  data.set(packAdjustments(entries));
  return { table: state.add("adjustments", { data, shape: [count, ADJUSTMENT_WORDS] }), count };
}

/** Beyond every row: the kernel leaves such adjustments alone. */
const NO_ROW = 0xffffffff;

function placePairs(
  state: StepState,
  label: string,
  pairs: readonly { readonly row: number; readonly place: number }[],
): StatePart {
  const data = Uint32Array.from(pairs.flatMap(({ row, place }) => [row, place]));
  return state.add(label, { data, shape: [pairs.length, 2], room: 2 * roomFor(pairs.length) });
}
