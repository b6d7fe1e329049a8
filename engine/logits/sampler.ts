/**
 * From residual rows to tokens: final norm, head, masks, adjustments, the draw, and log-probabilities where they are
 * asked for. Knows rows and settings; keeps no state between steps.
 */

import { at } from "../../kernels/at.ts";
import { adjustLogits } from "../../kernels/logits/adjust_logits.ts";
import type { ReadRequest } from "../../kernels/gpu.ts";
import { keepLogits } from "../../kernels/logits/keep_logits.ts";
import { klDivergence } from "../../kernels/logits/kl_divergence.ts";
import { maskLogits } from "../../kernels/logits/mask_logits.ts";
import { countTokens } from "../../kernels/logits/count_tokens.ts";
import { f32Of, u32Of } from "../../kernels/read_back.ts";
import { sample } from "../../kernels/logits/sample.ts";
import { LISTED_TOKENS, LOGPROB_WORDS, topLogprobs, unpackLogprobs } from "../../kernels/logits/top_logprobs.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import type { LoadedModel } from "../loaded_model.ts";
import type { StepState } from "../pass/step_state.ts";
import type { TokenLogprobs } from "../span.ts";
import type { DrawBlock, DrawPlan } from "./draw_plan.ts";
import { drawnTokens } from "./drawn_tokens.ts";
import { copyRows, headLogits, LOGIT_ROWS } from "./head.ts";
import { logprobsOf } from "./logprobs.ts";

/** Read-backs of a block. */
const READS = 4;

/** What a draw gives. */
export interface DrawnToken {
  readonly token: number;
  readonly logprobs: TokenLogprobs | undefined;
  /** KL(row ‖ sparse row) in nats, of an audited row that a sparse one waited for. */
  readonly divergence: number | undefined;
}

/** Draws of a step: recorded when their rows are computed, and read when the GPU is done with them. */
export class Draws {
  readonly #model: LoadedModel;
  readonly #state: StepState;
  readonly #plan: DrawPlan;

  constructor(model: LoadedModel, state: StepState, plan: DrawPlan) {
    this.#model = model;
    this.#state = state;
    this.#plan = plan;
  }

  /**
   * Records everything from the rows to the tokens; once for all steps that draw in the same way.
   * @param x f32 [drawn rows, hidden], before the final norm
   */
  async record(x: Tensor): Promise<void> {
    const { blocks, shape } = this.#plan;
    if (blocks.length === 0) return;
    const { commands } = this.#model;
    const program = await commands.program(`draw from ${x.label}: ${shape}`, () => {
      for (const [index, block] of blocks.entries()) this.#recordBlock(block, { x, index });
    });
    commands.replay(program);
  }

  /** What must be read back for `tokensOf`. */
  get requests(): readonly ReadRequest[] {
    return this.#plan.blocks.flatMap(({ rows, scored, compared }, index) => {
      const [listed, whole] = [scored?.rows.length ?? 0, scored?.whole ? scored.rows.length : 0];
      const audited = compared?.rows.length ?? 0;
      return [
        { tensor: this.#tokens(index), byteLength: rows.length * 4 },
        { tensor: this.#logprobs(index, listed), byteLength: listed * LOGPROB_WORDS * 4 },
        { tensor: this.#rawLogits(index, whole), byteLength: whole * this.#rowBytes },
        { tensor: this.#divergences(index, audited), byteLength: audited * 4 },
      ];
    });
  }

  /**
   * @param bytes what was read for `requests`
   * @returns the tokens of all rows, in their order
   */
  tokensOf(bytes: readonly Uint8Array<ArrayBuffer>[]): DrawnToken[] {
    const { blocks } = this.#plan;
    return blocks.flatMap((block, index) => this.#drawnOf(block, bytes.slice(READS * index, READS * (index + 1))));
  }

  get #rowBytes(): number {
    return this.#model.config.vocabSize * 4;
  }

  #recordBlock(block: DrawBlock, { x, index }: { readonly x: Tensor; readonly index: number }): void {
    const model = this.#model;
    const { commands, scratch, config: { hidden, vocabSize } } = model;
    const { rows, first, head, sampling } = block;
    const own = first === 0 ? x : scratch.take("drawn block", "f32", [LOGIT_ROWS, hidden]);
    if (first > 0) copyRows(model, { from: x, to: own, rows: rows.map((_, i) => first + i) });
    const logits = headLogits(model, { x: own, rows: rows.length, product: head, name: "logits" });
    this.#mask(logits, block);
    const raw = this.#keepRaw(logits, block, index);
    this.#audit(logits, block, index);
    this.#adjust(logits, block);
    const tokens = this.#tokens(index);
    sample(commands, {
      logits,
      sampling: this.#state.tensor(sampling),
      tokens,
      rows: rows.length,
      vocabulary: vocabSize,
    });
    this.#count(tokens, block);
    this.#listLogprobs(raw, block, index);
  }

  /** @returns logits that stay as they are, as the places of scored rows name them */
  #keepRaw(logits: Tensor, { scored }: DrawBlock, index: number): Tensor {
    if (!scored?.copied) return logits;
    const rowBytes = this.#rowBytes;
    const raw = this.#rawLogits(index, scored.rows.length);
    for (const [i, row] of scored.rows.entries()) {
      this.#model.commands.copy(logits, raw, { from: row * rowBytes, to: i * rowBytes, byteLength: rowBytes });
    }
    return raw;
  }

  /** Before anything looks at the logits: what a grammar forbids is not part of the distribution. */
  #mask(logits: Tensor, { masked }: DrawBlock): void {
    if (masked === undefined) return;
    const { commands, config: { vocabSize: vocabulary } } = this.#model;
    const { places, masks, count } = masked;
    const [rows, bits] = [this.#state.tensor(places), this.#state.tensor(masks)];
    maskLogits(commands, { logits, rows, masks: bits, count, vocabulary });
  }

  /** Keeps the logits of rows as they come from the head, and compares others with those that wait for them. */
  #audit(logits: Tensor, { kept: keeping, compared }: DrawBlock, index: number): void {
    const { commands, drafts: { kept }, config: { vocabSize: vocabulary } } = this.#model;
    if (kept === undefined) return;
    if (compared !== undefined) {
      const [places, count] = [this.#state.tensor(compared.places), compared.rows.length];
      const divergences = this.#divergences(index, count);
      klDivergence(commands, { logits, kept, places, divergences, count, vocabulary });
    }
    if (keeping !== undefined) {
      const [places, { count }] = [this.#state.tensor(keeping.places), keeping];
      keepLogits(commands, { logits, places, kept, count, vocabulary });
    }
  }

  #adjust(logits: Tensor, { adjusted }: DrawBlock): void {
    if (adjusted === undefined) return;
    const { commands, counts: { counts }, config: { vocabSize: vocabulary } } = this.#model;
    const [table, entries] = [this.#state.tensor(adjusted.rows), this.#state.tensor(adjusted.entries)];
    adjustLogits(commands, { logits, rows: table, entries, counts, count: adjusted.count, vocabulary });
  }

  /** The tokens just drawn are counted here, where the rows after them find them. */
  #count(drawn: Tensor, { adjusted }: DrawBlock): void {
    const { commands, counts: { counts }, config: { vocabSize: vocabulary } } = this.#model;
    if (adjusted?.updates === undefined || counts === undefined) return;
    const { table, count } = adjusted.updates;
    countTokens(commands, { updates: this.#state.tensor(table), drawn, counts, count, vocabulary });
  }

  #listLogprobs(logits: Tensor, { scored }: DrawBlock, index: number): void {
    if (scored === undefined) return;
    const { commands, config: { vocabSize: vocabulary } } = this.#model;
    const [places, count] = [this.#state.tensor(scored.places), scored.rows.length];
    const results = this.#logprobs(index, count);
    topLogprobs(commands, { logits, places, tokens: this.#tokens(index), results, count, vocabulary });
  }

  #drawnOf({ rows, scored, compared }: DrawBlock, bytes: readonly Uint8Array<ArrayBuffer>[]): DrawnToken[] {
    const { vocabSize } = this.#model.config;
    const [tokenBytes, logprobBytes, rawBytes, divergenceBytes] = bytes;
    const [tokens, listed] = [u32Of(tokenBytes), u32Of(logprobBytes)];
    const [raw, divergences] = [f32Of(rawBytes), f32Of(divergenceBytes)];
    const divergenceOf = new Map(compared?.rows.map((row, i) => [row, divergences[i]]));
    return rows.map(({ sequence }, row): DrawnToken => {
      const token = at(tokens, row);
      const { topLogprobs } = sequence.open.sampling;
      const place = scored?.rows.indexOf(row) ?? -1;
      if (topLogprobs === undefined || place < 0) {
        return { token, logprobs: undefined, divergence: divergenceOf.get(row) };
      }
      const whole = topLogprobs > LISTED_TOKENS ? raw.subarray(place * vocabSize, (place + 1) * vocabSize) : undefined;
      const logprobs = logprobsOf(unpackLogprobs(listed, place, vocabSize), { top: topLogprobs, whole });
      return { token, logprobs, divergence: divergenceOf.get(row) };
    });
  }

  /** u32 [LOGIT_ROWS] of a block */
  #tokens(index: number): Tensor {
    const all = drawnTokens(this.#model, this.#plan.blocks.length);
    const byteLength = LOGIT_ROWS * 4;
    return { ...all, byteOffset: index * byteLength, byteLength, shape: [LOGIT_ROWS] };
  }

  /** u32 [rows, LOGPROB_WORDS] of a block */
  #logprobs(index: number, rows: number): Tensor {
    return this.#model.scratch.take(`log-probabilities ${index}`, "u32", [rows, LOGPROB_WORDS]);
  }

  /** f32 [rows, vocabulary] of a block */
  #rawLogits(index: number, rows: number): Tensor {
    return this.#model.scratch.take(`raw logits ${index}`, "f32", [rows, this.#model.config.vocabSize]);
  }

  /** f32 [rows] of a block */
  #divergences(index: number, rows: number): Tensor {
    return this.#model.scratch.take(`divergences ${index}`, "f32", [rows]);
  }
}
