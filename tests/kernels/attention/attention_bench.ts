/**
 * How fast the attention kernels are here; run by hand: `deno run -A tests/kernels/attention/attention_bench.ts [--hardware]`.
 * Decode is judged by the K and V bytes that it must read, corrections and prefill by their causal multiplications and
 * additions. With `--hardware` the kernels for GPUs run on whatever adapter there is. `--corrections` measures those only.
 */

import { decodeAttention, scratchShape, type Tuning } from "../../../kernels/attention/decode_attention.ts";
import { prefillAttention } from "../../../kernels/attention/prefill_attention.ts";
import { Gpu } from "../../../kernels/gpu.ts";
import { type HeadShape, PAGE_ROWS } from "../../../kernels/attention/kv_pages.ts";
import { Commands } from "../../../kernels/pipeline.ts";
import { neededMass } from "../../../kernels/attention/mass.ts";
import { poolScores } from "../../../kernels/attention/pool_scores.ts";
import { ROW_WORDS, writeTableRow } from "../../../kernels/attention/row_table.ts";
import type { DType, Tensor } from "../../../kernels/tensor.ts";
import { topK } from "../../../kernels/attention/top_k.ts";
import { tableRow } from "../../support/kv_fixture.ts";
import { Random } from "../../support/random.ts";

const TIDE: HeadShape = { heads: 4, kvHeads: 2, headDim: 64 };
const LLAMA_8B: HeadShape = { heads: 32, kvHeads: 8, headDim: 128 };

interface BenchCase {
  readonly model: string;
  readonly shape: HeadShape;
  readonly kvRows: number;
}

const SOFTWARE_CASES: readonly BenchCase[] = [
  { model: "tide", shape: TIDE, kvRows: 4096 },
  { model: "tide", shape: TIDE, kvRows: 16_384 },
];

const HARDWARE_CASES: readonly BenchCase[] = [
  ...SOFTWARE_CASES,
  ...[10_048, 32_768, 100_032].map((kvRows) => ({ model: "llama-8b", shape: LLAMA_8B, kvRows })),
];

const SELECTED = 256;
const SPAN_ROWS = 512;
/** Rows of a correction, and most rows that a workgroup computes: 1 is each row alone. */
const CORRECTION_ROWS = [8, 32];
const ROWS_TOGETHER = [1, 4];
const MEASURED_MS = 200;

/** What is measured, recorded but not submitted. */
interface Calls {
  readonly row: () => void;
  readonly scored: () => void;
  readonly select: () => void;
  readonly cover: () => void;
  readonly gather: () => void;
  readonly span: () => void;
  readonly correct: (rows: number, rowsTogether: number) => void;
}

/** All kernels over one context. */
class Bench {
  readonly #commands: Commands;
  readonly #random = new Random(1);

  constructor(readonly gpu: Gpu, readonly at: BenchCase, readonly tuning: Tuning) {
    this.#commands = new Commands(gpu);
  }

  async run(): Promise<void> {
    const calls = this.#prepare();
    if (!Deno.args.includes("--corrections")) await this.#runKernels(calls);
    for (const rows of CORRECTION_ROWS) {
      for (const rowsTogether of ROWS_TOGETHER) {
        const ms = await this.#time(() => calls.correct(rows, rowsTogether));
        const how = rowsTogether === 1 ? "each alone" : `by ${rowsTogether}`;
        this.#report(`correction of ${rows}, ${how}`, ms, this.#rate(rows, ms));
      }
    }
  }

  async #runKernels({ row, scored, select, cover, gather, span }: Calls): Promise<void> {
    const { shape: { kvHeads, headDim }, kvRows } = this.at;
    const kvBytes = kvRows * kvHeads * headDim * 2 * 2;
    const gigabytes = (bytes: number, ms: number) => `${(bytes / ms / 1e6).toFixed(2)} GB/s`;
    let ms = await this.#time(row);
    this.#report("dense row", ms, gigabytes(kvBytes, ms));
    ms = await this.#time(scored);
    this.#report("dense row with scores", ms, gigabytes(kvBytes, ms));
    ms = await this.#time(select);
    this.#report(`pool and select ${SELECTED}`, ms, "");
    ms = await this.#time(cover);
    this.#report(`pool and select, most ${SELECTED}`, ms, "");
    ms = await this.#time(gather);
    this.#report(`gathered row of ${SELECTED}`, ms, gigabytes((kvBytes * SELECTED) / kvRows, ms));
    ms = await this.#time(span);
    this.#report(`tile of ${SPAN_ROWS} rows`, ms, this.#rate(SPAN_ROWS, ms));
  }

  #report(what: string, ms: number, rate: string): void {
    const { model, kvRows } = this.at;
    print(
      `${model.padEnd(9)} ${String(kvRows).padStart(6)} KV  ${what.padEnd(30)} ${
        ms.toFixed(3).padStart(9)
      } ms  ${rate}`,
    );
  }

  /** Of the last rows of the context, each of which sees itself and what lies before it. */
  #rate(rows: number, ms: number): string {
    const { shape: { heads, headDim }, kvRows } = this.at;
    const visited = rows * (kvRows - (rows - 1) / 2);
    return `${((4 * visited * heads * headDim) / ms / 1e9).toFixed(4)} TFLOP/s`;
  }

  #prepare(): Calls {
    const { shape, kvRows } = this.at;
    const { heads, kvHeads, headDim } = shape;
    const pages = kvRows / PAGE_ROWS;
    const table = new Uint32Array(SPAN_ROWS * ROW_WORDS);
    for (let i = 0; i < SPAN_ROWS; i++) {
      const row = tableRow({ kvLimit: kvRows - SPAN_ROWS + 1 + i, selected: SELECTED, recent: SELECTED / 4 });
      writeTableRow(table, i, row);
    }
    const pool = [pages, kvHeads, PAGE_ROWS, headDim];
    const given = {
      shape,
      kv: { k: this.#half(pool), v: this.#half(pool) },
      pageTable: this.#upload("u32", Uint32Array.from({ length: pages }, (_, i) => (i * 7 + 3) % pages), [1, pages]),
      maxPages: pages,
      q: this.#upload("f32", this.#random.normals(SPAN_ROWS * heads * headDim), [SPAN_ROWS, heads, headDim]),
      rowTable: this.#upload("u32", table, [SPAN_ROWS, ROW_WORDS]),
      scale: 1 / Math.sqrt(headDim),
      out: { o: this.#zeros([SPAN_ROWS, heads, headDim]), lse: this.#zeros([SPAN_ROWS, heads]) },
      tuning: this.tuning,
    };
    const sizes = scratchShape(shape, { rows: Math.max(...CORRECTION_ROWS), longest: kvRows });
    const scratch = { o: this.#zeros(sizes.o), lse: this.#zeros(sizes.lse) };
    const one = {
      ...given,
      firstRow: SPAN_ROWS - 1,
      rows: 1,
      longest: kvRows,
      scratch,
    };
    const scores = this.#zeros([1, heads, kvRows]);
    const values = this.#zeros([1, kvHeads, kvRows]);
    const positions = this.gpu.tensor("positions", "u32", [1, kvHeads, SELECTED]);
    const commands = this.#commands;
    const sets = { ...shape, ...one, sets: kvHeads, stride: kvRows, values };
    const coverage = neededMass(0.98);
    const row = tableRow({ kvLimit: kvRows, selected: SELECTED, recent: 4, coverage });
    writeTableRow(table, SPAN_ROWS - 1, row);
    const adaptiveSets = { ...sets, rowTable: this.#upload("u32", table, [SPAN_ROWS, ROW_WORDS]) };
    const adaptive = { floor: 16, tally: this.gpu.tensor("tally", "u32", [1]), tallyAt: 0, weight: 1 };
    const selection = { positions, sets: kvHeads, stride: SELECTED, shapes: ["kv_head"] as const };
    return {
      row: () => decodeAttention(commands, one),
      scored: () => decodeAttention(commands, { ...one, scores: { scores, stride: kvRows } }),
      select: () => {
        poolScores(commands, { ...sets, scores, scoreStride: kvRows, lse: given.out.lse });
        topK(commands, { ...sets, positions, keptStride: SELECTED });
      },
      cover: () => {
        poolScores(commands, { ...adaptiveSets, scores, scoreStride: kvRows, lse: given.out.lse });
        topK(commands, { ...adaptiveSets, positions, keptStride: SELECTED, adaptive });
      },
      gather: () => decodeAttention(commands, { ...one, longest: SELECTED, selection }),
      correct: (rows: number, rowsTogether: number) => {
        const first = SPAN_ROWS - rows;
        decodeAttention(commands, { ...one, firstRow: first, rows, blocks: [{ first, rows }], scratch, rowsTogether });
      },
      span: () => prefillAttention(commands, { ...given, firstRow: 0, rows: SPAN_ROWS }),
    };
  }

  /** Milliseconds of one call, over enough calls to hide the submit. */
  async #time(record: () => void): Promise<number> {
    const measure = async (calls: number) => {
      const start = performance.now();
      for (let i = 0; i < calls; i++) record();
      this.#commands.submit();
      await this.gpu.read([]);
      return (performance.now() - start) / calls;
    };
    await measure(1);
    const calls = Math.max(1, Math.min(500, Math.round(MEASURED_MS / (await measure(3)))));
    return Math.min(await measure(calls), await measure(calls));
  }

  /** A quarter of a million random halves over and over: making a hundred million numbers would take longer than the bench. */
  #half(shape: readonly number[]): Tensor {
    const tensor = this.gpu.tensor("pool", "f16", shape);
    const { halves } = this.#random.halves(2 ** 18);
    for (let at = 0; at < tensor.byteLength; at += halves.byteLength) {
      const part = halves.subarray(0, Math.min(halves.length, (tensor.byteLength - at) / 2));
      this.gpu.write(tensor, part, at);
    }
    return tensor;
  }

  #upload(dtype: DType, data: ArrayBufferView<ArrayBuffer>, shape: readonly number[]): Tensor {
    const tensor = this.gpu.tensor("input", dtype, shape);
    this.gpu.write(tensor, data);
    return tensor;
  }

  #zeros(shape: readonly number[]): Tensor {
    return this.gpu.tensor("output", "f32", shape);
  }
}

function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

const gpu = await Gpu.open();
try {
  const cases = gpu.info.software ? SOFTWARE_CASES : HARDWARE_CASES;
  const tuning = Deno.args.includes("--hardware") || !gpu.info.software ? "hardware" : "software";
  print(`${gpu.info.adapter}, ${tuning} kernels`);
  for (const benchCase of cases) await new Bench(gpu, benchCase, tuning).run();
} finally {
  await gpu.close();
}
