/** Each aim for one GPU beside what a run of `bench:all` measured: what was reached, and what by how much not. Pure arithmetic. */

import type { BenchFile } from "../../router/commands/bench/compare.ts";
import type { ContextFigures } from "../../router/commands/bench/figures.ts";
import type { Table } from "../../router/commands/bench/correction_tables.ts";
import type { PeerFigures } from "./llama_cpp.ts";
import type { AllFigures } from "./read_figures.ts";

/** A figure and its aim. */
interface Goal {
  readonly what: string;
  /** Undefined: not measured. */
  readonly ours: number | undefined;
  readonly peer?: number | undefined;
  /** Undefined: it is shown only. */
  readonly most?: number | undefined;
  readonly least?: number | undefined;
}

const AGREEMENT = 0.96;

/** A row for each figure. */
export function goalTable(all: AllFigures): Table {
  return {
    columns: ["", "ours", "llama.cpp", "aim", "reached"],
    rows: goals(all).map(({ what, ours, peer, most, least }) => [
      what,
      figure(ours),
      figure(peer),
      most !== undefined ? `≤ ${figure(most)}` : least !== undefined ? `≥ ${figure(least)}` : "–",
      reached({ ours, most, least }),
    ]),
  };
}

function reached({ ours, most, least }: Pick<Goal, "ours" | "most" | "least">): string {
  if (ours === undefined) return "not measured";
  const ratio = most !== undefined ? ours / most : least !== undefined ? least / ours : undefined;
  if (ratio === undefined) return "–";
  return ratio <= 1 ? "yes" : `no: ${ratio.toFixed(2)} × off`;
}

function goals(all: AllFigures): Goal[] {
  return [...decodeGoals(all), ...correctionGoals(all), ...promptGoals(all), ...batchGoals(all), ...otherGoals(all)];
}

/** Of one worker. */
export function atContext(file: BenchFile | undefined, context: number): ContextFigures | undefined {
  return file?.groups[0]?.figures.find((one) => one.context === context);
}

/** Milliseconds of the median step. */
export function stepMsOf(
  file: BenchFile | undefined,
  context: number,
  attention: "dense" | "sparse",
): number | undefined {
  return atContext(file, context)?.decode.find((one) => one.attention === attention)?.ms.step;
}

/** What llama.cpp did at a context. */
export function peerAt({ peers }: AllFigures, context: number, phase = "peer"): PeerFigures | undefined {
  return peers[phase]?.results[0]?.figures.find((one) => one.context === context);
}

function decodeGoals(all: AllFigures): Goal[] {
  const { decode } = all.bench;
  const step = (context: number, attention: "dense" | "sparse") => stepMsOf(decode, context, attention);
  const peerMs = (context: number) => ratio(1000, peerAt(all, context)?.decodeTokensPerSecond);
  const dense = ([[1024, 4.5], [32768, 5.6], [98304, 8]] as const).map(([context, most]): Goal => ({
    what: `dense step at ${context}, ms`,
    ours: step(context, "dense"),
    peer: peerMs(context),
    most,
  }));
  const sparse = ([[32768, 4.6], [98304, 5]] as const).map(([context, most]): Goal => ({
    what: `sparse step at ${context}, ms`,
    ours: step(context, "sparse"),
    most,
  }));
  return [...dense, { what: "sparse step at 1024, ms", ours: step(1024, "sparse") }, ...sparse, {
    what: "sparse step at 98304 ÷ dense step at 1024",
    ours: ratio(step(98304, "sparse"), step(1024, "dense")),
    most: 1.1,
  }];
}

function correctionGoals({ bench: { decode } }: AllFigures): Goal[] {
  const corrections = [1024, 32768, 98304].map((context): Goal => {
    const correction = atContext(decode, context)?.corrections?.refresh.find(({ stride }) => stride === 32);
    return {
      what: `correction of 32 rows ÷ dense step, at ${context}`,
      ours: ratio(correction?.correction.step, stepMsOf(decode, context, "dense")),
      most: 1.5,
    };
  });
  const alone = atContext(decode, 98304);
  const pace = alone?.corrections?.lossless.find(({ agreement }) => agreement === AGREEMENT)?.msPerToken;
  const four = decode?.groups[0]?.together?.find(({ context, sequences }) => context === 98304 && sequences === 4);
  const pace4 = four?.lossless.find(({ agreement }) => agreement === AGREEMENT)?.msPerToken;
  const denseMs = alone?.decode.find(({ attention }) => attention === "dense")?.meanMs;
  return [
    ...corrections,
    {
      what: "lossless at 98304, agreement 0.96: times as fast as dense",
      ours: ratio(denseMs, pace),
      least: 1.35,
    },
    { what: "the same of four sequences together", ours: ratio(four?.denseMs, pace4), least: 1.7 },
  ];
}

function promptGoals(all: AllFigures): Goal[] {
  const prompts = all.bench["decode"]?.groups[0]?.prompts ?? [];
  return [4096, 32768, 98304].map((context): Goal => {
    const peer = peerAt(all, context)?.prefillTokensPerSecond;
    const ours = prompts.find((one) => one.context === context)?.tokensPerSecond;
    return { what: `prompt of ${context}, tokens/s`, ours, peer, least: peer };
  });
}

function batchGoals({ bench: { decode } }: AllFigures): Goal[] {
  const batches = decode?.groups[0]?.batches ?? [];
  const speed = (size: number, attention: string) =>
    batches.find((one) => one.batch === size && one.attention === attention)?.tokensPerSecond;
  return ([[8, 6], [32, 16], [64, 24]] as const).flatMap(([size, least]) =>
    (["dense", "sparse"] as const).map((attention): Goal => ({
      what: `batch of ${size} up to 4096, ${attention}: times batch 1`,
      ours: ratio(speed(size, attention), speed(1, attention)),
      least,
    }))
  );
}

function otherGoals({ bench, loading, kernels }: AllFigures): Goal[] {
  const mha = ([[10240, 1.13], [32768, 1.44], [98304, 2.15]] as const).map(([context, least]): Goal => ({
    what: `llama-2-7b at ${context}: dense ÷ sparse step (aim: the paper's, on an A100)`,
    ours: ratio(stepMsOf(bench["mha"], context, "dense"), stepMsOf(bench["mha"], context, "sparse")),
    least,
  }));
  const tide = ([["embedded", "Dawn"], ["embedded_deno", "Deno's own"]] as const).flatMap(([phase, way]): Goal[] => [
    {
      what: `tide-10m at 1024, dense tokens/s, ${way}`,
      ours: ratio(1000, stepMsOf(bench[phase], 1024, "dense")),
      least: 1500,
    },
    {
      what: `tide-10m, first token of 16384, ms, ${way}`,
      ours: atContext(bench[phase], 16384)?.prefill?.firstTokenMs,
      most: 150,
    },
  ]);
  const deno = (["dense", "sparse"] as const).map((attention): Goal => ({
    what: `${attention} step at 1024, ms, Deno's own`,
    ours: stepMsOf(bench["decode_deno"], 1024, attention),
  }));
  const fastest = (pattern: RegExp) => {
    const speeds = kernels["kernels_deno"]?.kernels.filter(({ name }) => pattern.test(name)) ?? [];
    return speeds.length === 0 ? undefined : Math.max(...speeds.map(({ teraflopPerSecond = 0 }) => teraflopPerSecond));
  };
  const best = (from: string) => {
    const rates = loading?.gigabytesPerSecond[from];
    return rates && Math.max(...rates);
  };
  return [
    ...mha,
    ...tide,
    ...deno,
    { what: "products of prompts, TFLOP/s, Deno's own", ours: fastest(/^matmul /), least: 38 },
    { what: "attention of prompts, TFLOP/s, Deno's own", ours: fastest(/prefill of/), least: 15 },
    { what: "loading bf16 from the page cache, GB/s", ours: best("page cache"), least: 2 },
    { what: "loading bf16 from the disk, GB/s", ours: best("disk") },
  ];
}

function ratio(over: number | undefined, under: number | undefined): number | undefined {
  return over === undefined || under === undefined ? undefined : over / under;
}

/** Three digits, whole numbers from a hundred on. */
export function figure(value: number | undefined): string {
  if (value === undefined) return "–";
  return Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en-US") : `${Number(value.toPrecision(3))}`;
}
