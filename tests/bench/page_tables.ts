/** The figures of one run of `bench:all` as docs/benchmarks.md and docs/kernels.md have them. Knows tables; measures nothing. */

import type { BenchFile } from "../../router/commands/bench/compare.ts";
import type { Table } from "../../router/commands/bench/correction_tables.ts";
import type { StepProfile } from "../../router/commands/bench/profile.ts";
import { atContext, figure, goalTable, peerAt, stepMsOf } from "./goals.ts";
import type { AllFigures } from "./read_figures.ts";
import { markdownTable } from "../../router/commands/markdown_table.ts";

/** Of a step, kernels that take less are left out of the table. */
const MIN_SHARE = 0.015;

/** Faster than plain arithmetic: such kernels are shown by what they compute, others by what they read. */
const MATRIX_TERAFLOP = 60;

const CONTEXTS = [1024, 32768, 98304] as const;

/** Types of weights, and the phases that measure them; `peer` of llama.cpp. */
const TYPES = [
  { type: "f16", phase: "decode", peer: "peer" },
  { type: "q8", phase: "q8", peer: "peer_q8" },
  { type: "q4", phase: "q4", peer: "peer_q4" },
  { type: "q4k", phase: "q4k", peer: undefined },
] as const;

/** Lines of Markdown for docs/benchmarks.md: what users feel. What was not measured is left out or dashed. */
export function pageTables(all: AllFigures): readonly string[] {
  const { decode, mha } = all.bench;
  return [
    ...about(all),
    ...section("Aims", goalTable(all)),
    ...section("One sequence", decodeTable(all)),
    ...section("Batches of mixed lengths up to 4,096", batchTable(decode)),
    ...section("Weights of other types beside llama.cpp's", typesTable(all)),
    ...section("Llama-2-7B's shape", stepTable(mha, [10240, 32768, 98304])),
  ];
}

/** Lines of Markdown for docs/kernels.md: where the time of steps goes. What was not measured is left out. */
export function kernelTables(all: AllFigures): readonly string[] {
  const { decode, profile: profiled } = all.bench;
  const profile = profiled?.profile;
  return [
    ...(decode === undefined ? [] : [`${measured(all, decode, "profile")}.`]),
    ...(profile === undefined ? [] : [
      ...section("A step's budget", budgetTable(profile.steps)),
      ...section(
        `Kernels (reads ${figure(profile.ceilings.readGigabytesPerSecond)} GB/s)`,
        kernelTable(profile.steps),
      ),
    ]),
    ...["kernels_deno", "kernels"].flatMap((name) => section(`bench:kernels, ${name}`, timingTable(all, name))),
  ];
}

/** The marks in the page between which tables stand. */
const [BEGIN, END] = ["<!-- tables of bench:all -->", "<!-- end of tables -->"];

/** The page with these tables in the place of its own. @throws {RangeError} when it has no place for them */
export function withTables(page: string, tables: readonly string[]): string {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new RangeError(`Cannot place tables: the page lacks ${BEGIN} and ${END}`);
  return `${page.slice(0, begin)}${BEGIN}\n\n${tables.join("\n")}\n\n${page.slice(end)}`;
}

/** Card, day, command and model. @param phase whose card is named, where the run names cards */
function measured({ cards }: AllFigures, decode: BenchFile, phase: string): string {
  const worker = decode.groups[0]?.workers[0];
  const place = worker?.place?.replace(/ \(.*/, "");
  const adapter = [place, worker?.adapter].filter((part) => part !== undefined).join(", ");
  const card = cards[phase] ?? adapter;
  return `${card}, ${decode.date}: \`deno task bench:all --out DIR\`; ${decode.model}'s shape with random weights in f16, ` +
    `budget ${decode.budget}`;
}

function about(all: AllFigures): string[] {
  const { decode } = all.bench;
  if (decode === undefined) return [];
  const peer = all.peers["peer"]?.results[0]?.about;
  const phases = Map.groupBy(
    Object.entries(all.cards).flatMap(([phase, card]) => card === undefined ? [] : [{ phase, card }]),
    ({ card }) => card,
  );
  const named = [...phases].map(([card, of]) => `${card}: ${of.map(({ phase }) => phase).join(", ")}`);
  return [
    `${measured(all, decode, "decode")}${peer === undefined ? "" : `; ${peer}, in the same run`}.` +
    (phases.size > 1 ? ` Phases by card: ${named.join("; ")}.` : ""),
  ];
}

function section(title: string, { columns, rows }: Table): string[] {
  if (rows.length === 0) return [];
  return ["", `**${title}**`, "", ...markdownTable(columns, rows)];
}

function decodeTable(all: AllFigures): Table {
  const { decode } = all.bench;
  const figures = decode?.groups[0]?.figures ?? [];
  const rows = CONTEXTS.flatMap((context) => {
    const one = figures.find((figures) => figures.context === context);
    if (one === undefined) return [];
    const correction = one.corrections?.refresh[0]?.correction;
    const dense = one.decode.find(({ attention }) => attention === "dense");
    const peer = peerAt(all, context);
    const lossless = one.corrections?.lossless[0];
    return [[
      context.toLocaleString("en-US"),
      ...one.decode.map(({ ms }) => `${ms.step.toFixed(2)} (${ms.gpu.toFixed(2)}, ${ms.encode.toFixed(2)})`),
      figure(peer && 1000 / peer.decodeTokensPerSecond),
      correction === undefined ? "–" : `${correction.step.toFixed(1)} (${correction.gpu.toFixed(1)})`,
      correction === undefined || dense === undefined ? "–" : (correction.step / dense.ms.step).toFixed(2),
      lossless === undefined ? "–" : `${lossless.msPerToken.toFixed(2)} (${lossless.stride})`,
    ]];
  });
  const columns = [
    "context",
    "dense step (GPU, encode), ms",
    "sparse step (GPU, encode), ms",
    "llama.cpp, ms",
    "correction of 32 (GPU), ms",
    "÷ dense",
    "lossless at 0.96, ms/token (stride)",
  ];
  return { columns, rows };
}

function batchTable(file: BenchFile | undefined): Table {
  const batches = file?.groups[0]?.batches ?? [];
  const rows = batches.map(({ batch, attention, tokensPerSecond, ms }) => {
    const one = batches.find((first) => first.batch === 1 && first.attention === attention)?.tokensPerSecond;
    const times = one === undefined || batch === 1 ? "–" : `${(tokensPerSecond / one).toFixed(1)} ×`;
    return [
      String(batch),
      attention,
      tokensPerSecond.toFixed(0),
      times,
      ...[ms.step, ms.gpu, ms.encode].map((value) => value.toFixed(2)),
    ];
  });
  return { columns: ["batch", "attention", "tokens/s", "against batch 1", "step ms", "GPU ms", "encode ms"], rows };
}

function typesTable(all: AllFigures): Table {
  const rows = TYPES.flatMap(({ type, phase, peer }) => {
    const file = all.bench[phase];
    if (file === undefined) return [];
    const steps = (attention: "dense" | "sparse") =>
      CONTEXTS.map((context) => stepMsOf(file, context, attention)?.toFixed(2) ?? "–").join(" / ");
    const peers = (of: (figures: NonNullable<ReturnType<typeof peerAt>>) => number, contexts: readonly number[]) =>
      contexts.map((context) => {
        const figures = peer && peerAt(all, context, peer);
        return figure(figures && of(figures));
      }).join(" / ");
    const corrections = CONTEXTS.map((context) =>
      figure(atContext(file, context)?.corrections?.refresh.find(({ stride }) => stride === 32)?.correction.step)
    );
    const prompts = [4096, 32768].map((context) =>
      figure(file.groups[0]?.prompts?.find((one) => one.context === context)?.tokensPerSecond)
    );
    return [[
      type,
      steps("dense"),
      steps("sparse"),
      corrections.join(" / "),
      peers(({ decodeTokensPerSecond }) => 1000 / decodeTokensPerSecond, CONTEXTS),
      prompts.join(" / "),
      peers(({ prefillTokensPerSecond }) => prefillTokensPerSecond, [4096, 32768]),
    ]];
  });
  const columns = [
    "weights",
    "dense ms, 1,024 / 32,768 / 98,304",
    "sparse ms",
    "correction of 32, ms",
    "llama.cpp, ms (Q8_0, Q4_0)",
    "prompts of 4,096 / 32,768, tokens/s",
    "llama.cpp",
  ];
  return { columns, rows };
}

function stepTable(file: BenchFile | undefined, contexts: readonly number[]): Table {
  if (file === undefined) return { columns: [], rows: [] };
  const steps = (["dense", "sparse"] as const).map((attention) => [
    `${attention} step, ms`,
    ...contexts.map((context) => stepMsOf(file, context, attention)?.toFixed(2) ?? "–"),
  ]);
  return { columns: ["", ...contexts.map((context) => context.toLocaleString("en-US"))], rows: steps };
}

function budgetTable(steps: readonly StepProfile[]): Table {
  const columns = [
    "context",
    "work",
    "step ms",
    "kernels",
    "between dispatches",
    "between passes",
    "host",
    "one ahead",
  ];
  const rows = steps.map(({ context, work, budget, ahead }) => [
    String(context),
    work,
    ...[budget.stepMs, budget.kernelsMs, budget.betweenDispatchesMs, budget.betweenPassesMs, budget.hostMs]
      .map((ms) => ms.toFixed(2)),
    ahead === undefined ? "–" : `${ahead.stepMs.toFixed(2)} (idle ${(100 * ahead.idleShare).toFixed(0)} %)`,
  ]);
  return { columns, rows };
}

/** A row for each kernel of one kind of work, a column for each context. */
function kernelTable(steps: readonly StepProfile[]): Table {
  const contexts = [...new Set(steps.map(({ context }) => context))];
  const rows = [...Map.groupBy(steps, ({ work }) => work)].flatMap(([work, profiles]) => {
    const named = profiles.flatMap(({ context, budget, kernels }) =>
      kernels.map((kernel) => ({ ...kernel, context, share: kernel.msPerStep / budget.kernelsMs }))
    );
    return [...Map.groupBy(named, ({ name }) => name)]
      .filter(([, same]) => same.some(({ share }) => share >= MIN_SHARE))
      .map(([name, same]) => [
        work,
        name,
        String(same[0]?.count ?? "–"),
        ...contexts.map((context) => {
          const one = same.find((kernel) => kernel.context === context);
          if (one === undefined) return "–";
          const { msPerStep, gigabytesPerSecond, teraflopPerSecond } = one;
          const speed = (teraflopPerSecond ?? 0) > MATRIX_TERAFLOP
            ? `${figure(teraflopPerSecond)} TFLOP/s`
            : gigabytesPerSecond === undefined
            ? undefined
            : `${figure(gigabytesPerSecond)} GB/s`;
          return speed === undefined ? msPerStep.toFixed(3) : `${msPerStep.toFixed(3)} (${speed})`;
        }),
      ]);
  });
  return { columns: ["work", "kernel", "dispatches", ...contexts.map((context) => `ms at ${context}`)], rows };
}

function timingTable({ kernels }: AllFigures, name: string): Table {
  const rows = kernels[name]?.kernels.map(({ name, ms, gigabytesPerSecond, teraflopPerSecond }) => [
    name,
    ms.toFixed(4),
    figure(gigabytesPerSecond),
    figure(teraflopPerSecond),
  ]) ?? [];
  return { columns: ["kernel", "ms", "GB/s", "TFLOP/s"], rows };
}
