/**
 * `bench`: prefill and decode speed by context, dense and sparse, through a worker process as in service.
 * Knows steps and clocks; what a figure means is said beside it.
 */

import { type Session, SessionHost } from "../../engine/session.ts";
import type { StepResult } from "../../engine/span.ts";
import type { Command, FlagValues } from "../command_line.ts";
import { MODEL_FLAGS } from "../config.ts";
import type { Terminal } from "../terminal.ts";
import { ensureVulkanDriver } from "../vulkan_driver.ts";
import { openBenchWorker } from "./bench_worker.ts";

const flags = {
  ...MODEL_FLAGS,
  contexts: { kind: "text", value: "N,N,…", default: "256,1024", help: "context lengths in tokens, ascending" },
  budget: { kind: "integer", min: 16, max: 2 ** 20, default: 256, help: "positions a sparse layer reads" },
  tokens: { kind: "integer", min: 2, max: 10000, default: 16, help: "tokens to decode at each context, per attention" },
  chunk: { kind: "integer", min: 16, max: 8192, default: 512, help: "prompt tokens per prefill step" },
  json: { kind: "switch", help: "print one JSON object" },
} as const;

/** Medians over the decoded tokens, in milliseconds. */
interface StepMs {
  /** Round trip as the router sees it. */
  readonly step: number;
  /** On the worker: planning and recording commands. */
  readonly encode: number;
  /** On the worker: from the last submit until the token is read, the read-back's own latency taken off: GPU time. */
  readonly gpu: number;
  /** A read-back from an idle queue. */
  readonly readBack: number;
  /** What the worker did not see: framing, the socket, the event loops. */
  readonly wire: number;
}

interface DecodeFigures {
  readonly attention: "dense" | "sparse";
  readonly tokensPerSecond: number;
  readonly ms: StepMs;
}

interface ContextFigures {
  readonly context: number;
  readonly prefillTokensPerSecond: number;
  /** From the first prefill step to the first token. */
  readonly firstTokenMs: number;
  readonly decode: readonly DecodeFigures[];
}

export const command: Command<typeof flags> = {
  summary: "Prefill and decode speed by context, dense and sparse",
  flags,
  async run(values: FlagValues<typeof flags>, terminal: Terminal): Promise<number> {
    await ensureVulkanDriver((line) => terminal.error(line));
    const contexts = values.contexts.split(",").map(Number);
    const worker = await openBenchWorker(values, (fraction) => terminal.progress("weights", fraction));
    try {
      const host = new SessionHost(worker);
      const figures: ContextFigures[] = [];
      await warmUp(host, values.budget);
      for (const context of contexts) {
        figures.push(await measure(host, { ...values, context, readBackMs: worker.readBackMs }));
      }
      const { id: model, adapter, parameters, kvPages } = worker.facts;
      const result = {
        date: new Date().toISOString().slice(0, 10),
        adapter,
        model,
        parameters,
        kvPages,
        budget: values.budget,
        figures,
      };
      if (values.json) terminal.line(JSON.stringify(result, undefined, 2));
      else for (const line of report(result)) terminal.line(line);
      return 0;
    } finally {
      await worker.close();
    }
  },
};

interface MeasureOptions {
  readonly context: number;
  readonly budget: number;
  readonly tokens: number;
  readonly chunk: number;
  readonly readBackMs: number;
}

/** Compiles every kernel that the measurement uses. */
async function warmUp(host: SessionHost, budget: number): Promise<void> {
  const session = host.open({ sparse: { budget: 16, heads: "kv_head" } });
  await session.prefill(randomTokens(host, 80));
  await session.decode(1);
  if (host.runner.facts.roles !== undefined) await session.decode(1, "sparse");
  await session.close();
  if (budget < 16) throw new RangeError(`Cannot measure: budget ${budget} is below 16`);
}

async function measure(host: SessionHost, options: MeasureOptions): Promise<ContextFigures> {
  const session = host.open({ sparse: { budget: options.budget, heads: "kv_head" } });
  try {
    const tokens = randomTokens(host, options.context);
    const start = performance.now();
    for (let at = 0; at < tokens.length; at += options.chunk) {
      const end = Math.min(tokens.length, at + options.chunk);
      await session.prefill(tokens.subarray(at, end), end === tokens.length ? "last" : "none");
    }
    const firstTokenMs = performance.now() - start;
    const decode = [await measureDecode(host, session, { ...options, attention: "dense" })];
    if (host.runner.facts.roles !== undefined && options.context > options.budget) {
      decode.push(await measureDecode(host, session, { ...options, attention: "sparse" }));
    }
    const { context } = options;
    return { context, prefillTokensPerSecond: context / (firstTokenMs / 1000), firstTokenMs, decode };
  } finally {
    await session.close();
  }
}

async function measureDecode(
  host: SessionHost,
  session: Session,
  options: MeasureOptions & { readonly attention: "dense" | "sparse" },
): Promise<DecodeFigures> {
  const timings: { readonly stepMs: number; readonly timing: StepResult["timing"] }[] = [];
  let token = 1;
  for (let i = 0; i <= options.tokens; i++) {
    const { attention } = options;
    const step = session.plan({ kind: "decode", attention, tokens: Uint32Array.of(token), logits: "last" });
    const start = performance.now();
    const { spans, timing } = await host.run(step);
    // The first token after a change of attention may still compile or grow working memory.
    if (i > 0) timings.push({ stepMs: performance.now() - start, timing });
    token = spans[0]?.token ?? 0;
  }
  const ms: StepMs = {
    step: median(timings.map(({ stepMs }) => stepMs)),
    encode: median(timings.map(({ timing }) => timing.encodeMs)),
    gpu: median(timings.map(({ timing }) => Math.max(0, timing.waitMs - options.readBackMs))),
    readBack: options.readBackMs,
    wire: median(timings.map(({ stepMs, timing }) => stepMs - timing.totalMs)),
  };
  return { attention: options.attention, tokensPerSecond: 1000 / ms.step, ms };
}

function randomTokens(host: SessionHost, count: number): Uint32Array {
  let state = 1;
  return Uint32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % host.runner.facts.vocabSize;
  });
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

function report(
  { date, adapter, model, parameters, budget, figures }: {
    readonly date: string;
    readonly adapter: string;
    readonly model: string;
    readonly parameters: number;
    readonly budget: number;
    readonly figures: readonly ContextFigures[];
  },
): string[] {
  const rows = figures.flatMap(({ context, prefillTokensPerSecond, firstTokenMs, decode }) =>
    decode.map(({ attention, tokensPerSecond, ms }) => {
      const cells = [ms.step, ms.gpu, ms.encode, ms.readBack, ms.wire].map((value) => value.toFixed(2));
      const head = [context, prefillTokensPerSecond.toFixed(0), firstTokenMs.toFixed(0)];
      return `| ${[...head, attention, tokensPerSecond.toFixed(1), ...cells].join(" | ")} |`;
    })
  );
  return [
    `${model}, ${
      (parameters / 1e6).toFixed(1)
    } M parameters, on ${adapter}, ${date}; sparse budget ${budget}; one sequence`,
    "",
    "| context | prefill tokens/s | first token ms | attention | decode tokens/s | step ms | GPU ms | encode ms | read-back ms | wire ms |",
    `|${"---|".repeat(10)}`,
    ...rows,
  ];
}
