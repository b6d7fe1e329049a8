/**
 * The attention kernels over long contexts, for the kernel bench: decode by the K and V bytes that it must read,
 * corrections and prefill by their causal multiplications and additions. Knows calls; the clock is in `kernel_timing.ts`.
 */

import { decodeAttention } from "../../../kernels/attention/decode_attention.ts";
import { scratchShape } from "../../../kernels/attention/split/split_scratch.ts";
import { mergeSplits } from "../../../kernels/attention/merge_states.ts";
import { prefillAttention } from "../../../kernels/attention/prefill_attention.ts";
import { PAGE_ROWS } from "../../../kernels/attention/kv_pages.ts";
import type { Commands } from "../../../kernels/pipeline.ts";
import { neededMass } from "../../../kernels/attention/mass.ts";
import { poolScores } from "../../../kernels/attention/pool_scores.ts";
import { ROW_WORDS, writeTableRow } from "../../../kernels/attention/row_table.ts";
import { Scratch } from "../../../kernels/scratch.ts";
import type { DType, Tensor } from "../../../kernels/tensor.ts";
import { MATRIX_CUT, PLAIN_CUT, type SplitCut } from "../../../kernels/attention/split/split_cut.ts";
import { rowTilesFor } from "../../../kernels/attention/tile/matrix_tile_plan.ts";
import { topK } from "../../../kernels/attention/top_k.ts";
import { tableRow } from "../../support/kv_fixture.ts";
import { halvesOf } from "../../support/half_queries_fixture.ts";
import { Random } from "../../support/random.ts";
import { type KernelFigures, type KernelTiming, type TimedCall, timeKernel } from "../kernel_timing.ts";
import { TIMED_CONTEXTS, type TimedContext } from "./attention_cases.ts";

const SELECTED = 512;
const SPAN_ROWS = 2048;
/** Rows of a correction, and most rows that a workgroup computes: 1 is each row alone. */
const CORRECTION_ROWS = [8, 32];
const ROWS_TOGETHER = [1, 4];
/** Rows of dense decoding, and of corrections, on matrix units. */
const MATRIX_ROWS = [1, 4, 32];

/** What is measured, recorded but not submitted. */
interface Calls {
  readonly row: () => void;
  readonly scored: () => void;
  readonly merge: () => void;
  readonly pool: () => void;
  readonly select: () => void;
  readonly cover: () => void;
  readonly gather: () => void;
  readonly span: () => void;
  readonly correct: (rows: number, rowsTogether: number) => void;
  /** The last rows of the context, together, on matrix units. */
  readonly byMatrices: (rows: number) => void;
}

/** Every kernel over every context that this adapter computes in reasonable time. */
export async function benchAttention(timing: KernelTiming): Promise<KernelFigures[]> {
  const { software } = timing.commands.gpu.info;
  const figures: KernelFigures[] = [];
  for (const context of TIMED_CONTEXTS.filter(({ timed }) => !software || timed === "everywhere")) {
    const bench = new Bench(timing, context);
    figures.push(...await bench.run());
    bench.close();
  }
  return figures;
}

/** All kernels over one context. */
class Bench {
  readonly #timing: KernelTiming;
  readonly #commands: Commands;
  readonly #random = new Random(1);
  readonly #tensors: Tensor[] = [];
  readonly #scratch: Scratch;

  constructor(timing: KernelTiming, readonly at: TimedContext) {
    this.#timing = timing;
    this.#commands = timing.commands;
    this.#scratch = new Scratch(timing.commands);
  }

  async run(): Promise<KernelFigures[]> {
    const figures: KernelFigures[] = [];
    for (const { name, ...work } of this.#works()) {
      const { model, kvRows } = this.at;
      figures.push(...await timeKernel(this.#timing, { name: `${model}, ${kvRows} KV rows: ${name}`, ...work }));
    }
    return figures;
  }

  #works(): TimedCall[] {
    // Filling caches takes longer than timing a kernel: only where one is wanted.
    let prepared: Calls | undefined;
    const calls = () => prepared ??= this.#prepare();
    const { shape, kvRows } = this.at;
    const bytes = kvRows * shape.kvHeads * shape.headDim * 2 * 2;
    const corrections = CORRECTION_ROWS.flatMap((rows) =>
      ROWS_TOGETHER.map((together) => ({
        name: `correction of ${rows}, ${together === 1 ? "each alone" : `by ${together}`}`,
        record: () => calls().correct(rows, together),
        bytes,
        flop: this.#flop(rows),
      }))
    );
    const onMatrices = (this.#hasMatrices ? MATRIX_ROWS : []).map((rows) => ({
      name: `${rows === 1 ? "dense row" : `correction of ${rows}`}, on matrix units`,
      record: () => calls().byMatrices(rows),
      bytes,
      flop: this.#flop(rows),
    }));
    return [
      { name: "dense row", record: () => calls().row(), bytes, flop: this.#flop(1) },
      { name: "dense row, scores kept", record: () => calls().scored(), bytes, flop: this.#flop(1) },
      { name: "merge of its splits", record: () => calls().merge() },
      { name: "pool", record: () => calls().pool() },
      { name: `select ${SELECTED}`, record: () => calls().select() },
      { name: `pool and select, most ${SELECTED}`, record: () => calls().cover() },
      { name: `gathered row of ${SELECTED}`, record: () => calls().gather(), bytes: bytes * SELECTED / kvRows },
      { name: `prefill of ${this.#spanRows}`, record: () => calls().span(), bytes, flop: this.#flop(this.#spanRows) },
      ...corrections,
      ...onMatrices,
    ];
  }

  close(): void {
    this.#scratch.close();
    for (const tensor of this.#tensors.splice(0)) this.#commands.gpu.free(tensor);
  }

  /** Of dense decoding here. */
  get #cut(): SplitCut {
    return this.#hasMatrices ? MATRIX_CUT : PLAIN_CUT;
  }

  get #hasMatrices(): boolean {
    return rowTilesFor(this.#commands.gpu.info, this.at.shape) !== undefined;
  }

  /** Rows of the prefill: at the end of the context, behind as many at least. */
  get #spanRows(): number {
    return Math.min(SPAN_ROWS, this.at.kvRows / 2);
  }

  /** Of the last rows of the context, each of which sees itself and what lies before it. */
  #flop(rows: number): number {
    const { shape: { heads, headDim }, kvRows } = this.at;
    return 4 * rows * (kvRows - (rows - 1) / 2) * heads * headDim;
  }

  #prepare(): Calls {
    const { shape, kvRows } = this.at;
    const { heads, kvHeads, headDim } = shape;
    const pages = kvRows / PAGE_ROWS;
    const table = new Uint32Array(this.#spanRows * ROW_WORDS);
    for (let i = 0; i < this.#spanRows; i++) {
      const row = tableRow({ kvLimit: kvRows - this.#spanRows + 1 + i, selected: SELECTED, recent: SELECTED / 4 });
      writeTableRow(table, i, row);
    }
    const pool = [pages, kvHeads, PAGE_ROWS, headDim];
    const given = {
      shape,
      kv: { k: this.#half(pool), v: this.#half(pool) },
      pageTable: this.#upload("u32", Uint32Array.from({ length: pages }, (_, i) => (i * 7 + 3) % pages), [1, pages]),
      maxPages: pages,
      q: this.#upload("f32", this.#random.normals(this.#spanRows * heads * headDim), [this.#spanRows, heads, headDim]),
      rowTable: this.#upload("u32", table, [this.#spanRows, ROW_WORDS]),
      scale: 1 / Math.sqrt(headDim),
      out: { o: this.#zeros([this.#spanRows, heads, headDim]), lse: this.#zeros([this.#spanRows, heads]) },
    };
    const sizes = scratchShape(shape, { rows: Math.max(...CORRECTION_ROWS), longest: kvRows, selected: SELECTED });
    const scratch = { o: this.#zeros(sizes.o), lse: this.#zeros(sizes.lse) };
    const one = {
      ...given,
      firstRow: this.#spanRows - 1,
      rows: 1,
      longest: kvRows,
      scratch,
    };
    const halves = this.#hasMatrices ? this.#halves(given.q) : given.q;
    const scores = this.#zeros([1, heads, kvRows]);
    const values = this.#zeros([1, kvHeads, kvRows]);
    const positions = this.#tensor("positions", "u32", [1, kvHeads, SELECTED]);
    const commands = this.#commands;
    const sets = { ...shape, ...one, sets: kvHeads, stride: kvRows, values };
    const coverage = neededMass(0.98);
    const row = tableRow({ kvLimit: kvRows, selected: SELECTED, recent: 4, coverage });
    writeTableRow(table, this.#spanRows - 1, row);
    const adaptiveSets = { ...sets, rowTable: this.#upload("u32", table, [this.#spanRows, ROW_WORDS]) };
    const adaptive = { floor: 16, tally: this.#tensor("tally", "u32", [1]), tallyAt: 0, weight: 1 };
    const selection = { positions, sets: kvHeads, stride: SELECTED, shapes: ["kv_head"] as const };
    return {
      row: () => decodeAttention(commands, one),
      scored: () => decodeAttention(commands, { ...one, scores: { scores, stride: kvRows } }),
      merge: () => mergeSplits(commands, { ...one, parts: scratch, cut: this.#cut, outForm: "f32" }),
      pool: () => poolScores(commands, { ...sets, scores, scoreStride: kvRows, lse: given.out.lse }),
      select: () => topK(commands, { ...sets, positions, keptStride: SELECTED, scratch: this.#scratch }),
      cover: () => {
        poolScores(commands, { ...adaptiveSets, scores, scoreStride: kvRows, lse: given.out.lse });
        topK(commands, { ...adaptiveSets, positions, keptStride: SELECTED, adaptive, scratch: this.#scratch });
      },
      gather: () => decodeAttention(commands, { ...one, longest: SELECTED, selection }),
      correct: (rows: number, rowsTogether: number) => {
        const first = this.#spanRows - rows;
        decodeAttention(commands, { ...one, firstRow: first, rows, blocks: [{ first, rows }], scratch, rowsTogether });
      },
      byMatrices: (rows: number) => {
        const first = this.#spanRows - rows;
        decodeAttention(commands, { ...one, q: halves, firstRow: first, rows, blocks: [{ first, rows }] });
      },
      span: () => prefillAttention(commands, { ...given, q: halves, firstRow: 0, rows: this.#spanRows }),
    };
  }

  /** Queries of the span as matrix tiles read them. */
  #halves(q: Tensor): Tensor {
    const make = (dtype: "f16", shape: readonly number[]) => this.#tensor("halves", dtype, shape);
    const given = { shape: this.at.shape, rows: this.#spanRows, q, attendedBy: "chunk", make } as const;
    return halvesOf(this.#commands, given);
  }

  /** A quarter of a million random halves over and over: making a hundred million numbers would take longer than the bench. */
  #half(shape: readonly number[]): Tensor {
    const tensor = this.#tensor("pool", "f16", shape);
    const { halves } = this.#random.halves(2 ** 18);
    for (let at = 0; at < tensor.byteLength; at += halves.byteLength) {
      const part = halves.subarray(0, Math.min(halves.length, (tensor.byteLength - at) / 2));
      this.#commands.gpu.write(tensor, part, at);
    }
    return tensor;
  }

  #upload(dtype: DType, data: ArrayBufferView<ArrayBuffer>, shape: readonly number[]): Tensor {
    const tensor = this.#tensor("input", dtype, shape);
    this.#commands.gpu.write(tensor, data);
    return tensor;
  }

  #zeros(shape: readonly number[]): Tensor {
    return this.#tensor("output", "f32", shape);
  }

  #tensor(label: string, dtype: DType, shape: readonly number[]): Tensor {
    const tensor = this.#commands.gpu.tensor(label, dtype, shape);
    this.#tensors.push(tensor);
    return tensor;
  }
}
