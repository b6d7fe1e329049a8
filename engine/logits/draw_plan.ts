/**
 * What is drawn in a step, and the host's part of it, placed in the step's state before anything is recorded: settings,
 * masks, adjustments, and where the logits of audited rows are kept. Knows rows and settings; records nothing.
 */

import { maskWords } from "../../kernels/logits/mask_logits.ts";
import { packSampling, SAMPLING_WORDS } from "../../kernels/logits/sample.ts";
import { LISTED_TOKENS } from "../../kernels/logits/top_logprobs.ts";
import type { LoadedModel } from "../loaded_model.ts";
import { roomFor, type StatePart, type StepState } from "../pass/step_state.ts";
import type { DrawnRow } from "../row_batch.ts";
import { type BlockRows, placeAdjustments, type PlacedAdjustments } from "./adjustments.ts";
import { LOGIT_ROWS } from "./head.ts";

/** Rows of the step that one product of the head serves, at most `LOGIT_ROWS` of them. */
export interface DrawBlock {
  readonly rows: readonly DrawnRow[];
  readonly head: DrawnRow["head"];
  /** Index of the first of them among all drawn rows. */
  readonly first: number;
  /** u32 [rows, SAMPLING_WORDS] */
  readonly sampling: StatePart;
  readonly masked: MaskedRows | undefined;
  readonly adjusted: PlacedAdjustments | undefined;
  readonly scored: ScoredDraws | undefined;
  /** u32 [count, 2]: rows of the block, and where their logits are kept. */
  readonly kept: { readonly places: StatePart; readonly count: number } | undefined;
  /** The same of rows that are compared with what was kept. */
  readonly compared: { readonly places: StatePart; readonly rows: readonly number[] } | undefined;
}

/** Rows of a block whose log-probabilities are wanted. */
export interface ScoredDraws {
  /** Their indices in the block. */
  readonly rows: readonly number[];
  /** u32 [rows, 2]: where their logits lie as the head made them, and the row that the token was drawn after. */
  readonly places: StatePart;
  /** Whether they lie in copies, row by row: those of the block are adjusted, or some are read whole. */
  readonly copied: boolean;
  /** Whether some want more tokens than a kernel lists: the copies are read. */
  readonly whole: boolean;
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

/**
 * Adds what the draws after these rows need to the state of their step.
 * @param input.step its index
 */
export function planDraw(
  model: LoadedModel,
  state: StepState,
  { rows, step }: { readonly rows: readonly DrawnRow[]; readonly step: number },
): DrawPlan {
  const at = state.words;
  const blocks: DrawBlock[] = [];
  const lastRows = new Map(rows.map((row) => [row.span, row]));
  const isLast = (row: DrawnRow) => lastRows.get(row.span) === row;
  for (let first = 0; first < rows.length;) {
    const some = blockAt(rows, first);
    blocks.push(planBlock(model, state, { rows: some, first, isLast, step }));
    first += some.length;
  }
  return { blocks, shape: `${at} ${blocks.map(shapeOf).join(";")}` };
}

function shapeOf({ rows, head, masked, adjusted, scored, kept, compared }: DrawBlock): string {
  return [
    rows.length,
    head,
    masked?.count,
    adjusted && `${adjusted.count}/${adjusted.entries.words}/${adjusted.updates?.count}`,
    scored && `${scored.rows.join("+")}/${scored.copied}`,
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
  { drafts, counts, config: { vocabSize } }: LoadedModel,
  state: StepState,
  { rows, first, ...step }: Pick<DrawBlock, "first"> & BlockRows,
): DrawBlock {
  const placed = (kind: DrawnRow["audit"]) =>
    rows.flatMap(({ sequence: { open: { sequence } }, position, audit }, row) =>
      audit === kind ? [{ row, sequence, position }] : []
    );
  // Before the comparison frees places: nothing may be kept where something still waits to be compared.
  const kept = drafts.keep(placed("keep"));
  const compared = drafts.compare(placed("compare"));
  const adjusted = placeAdjustments(counts, state, { rows, ...step });
  return {
    rows,
    head: rows[0]?.head ?? "vector",
    first,
    sampling: placeSampling(state, rows),
    masked: placeMasks(state, rows, vocabSize),
    adjusted,
    scored: placeScored(state, rows, adjusted !== undefined),
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

function placeScored(state: StepState, rows: readonly DrawnRow[], isAdjusted: boolean): ScoredDraws | undefined {
  const wanted = rows.map(({ sequence }) => sequence.open.sampling.topLogprobs);
  const scored = rows.flatMap((_, row) => (wanted[row] === undefined ? [] : [row]));
  if (scored.length === 0) return undefined;
  const whole = wanted.some((count = 0) => count > LISTED_TOKENS);
  const copied = isAdjusted || whole;
  const pairs = scored.map((row, i) => ({ row: copied ? i : row, place: row }));
  return { rows: scored, places: placePairs(state, "scored rows", pairs), copied, whole };
}

function placePairs(
  state: StepState,
  label: string,
  pairs: readonly { readonly row: number; readonly place: number }[],
): StatePart {
  const data = Uint32Array.from(pairs.flatMap(({ row, place }) => [row, place]));
  return state.add(label, { data, shape: [pairs.length, 2], room: 2 * roomFor(pairs.length) });
}
