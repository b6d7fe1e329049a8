/**
 * Run by hand: `deno run -A tests/engine/coverage_quality.ts [needles of each length] [windows of each book]`. Answers
 * needles of the embedded model under fixed and adaptive budgets, questions decoded row by row, and measures perplexity
 * after 512 tokens; prints what was right, and how many positions a set had.
 */

import { Engine } from "../../engine/engine.ts";
import { loadTextModel, runNeedle } from "../../engine/evaluation/needles.ts";
import { windowNll } from "../../engine/evaluation/perplexity.ts";
import { rowsRead } from "../../engine/layer_plan.ts";
import { SessionHost, type SessionRunner } from "../../engine/evaluation/hand_session.ts";
import type { SparseSettings, Step, StepResult } from "../../engine/span.ts";
import { EVALUATION_DATA, readNeedles, readWindows } from "../../router/commands/eval/evaluation_data.ts";
import { TIDE } from "../support/model_directory.ts";
import { testProvider } from "../support/test_provider.ts";

const CAP = 256;

const VARIANTS: readonly (SparseSettings | undefined)[] = [
  undefined,
  ...[16, 64, 128, CAP].map((budget): SparseSettings => ({ budget, heads: "kv_head" })),
  ...[0.9, 0.95, 0.98, 0.995].map((coverage): SparseSettings => ({ budget: CAP, heads: "kv_head", coverage })),
];

const needlesEach = Number(Deno.args[0] ?? 20);
const windowsEach = Number(Deno.args[1] ?? 2);

/** Passes steps on, and counts what the adaptive rows in them read. */
class CountingRunner implements SessionRunner {
  readonly #engine: Engine;
  #rows = 0;
  #positions = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  get info(): Engine["info"] {
    return this.#engine.info;
  }

  /** Positions of a set, on average; undefined when no row was adaptive. */
  get positions(): number | undefined {
    return this.#rows === 0 ? undefined : this.#positions / this.#rows;
  }

  async run(step: Step): Promise<StepResult> {
    const result = await this.#engine.run(step);
    const { roles = [] } = this.info;
    const sparseLayers = roles.filter((role) => role === "sparse").length;
    result.spans.forEach(({ rowsRead: read }, i) => {
      if (read === undefined) return;
      this.#rows++;
      this.#positions += (read - rowsRead(roles, 0, step.spans[i]?.from ?? 0)) / sparseLayers;
    });
    return result;
  }
}

function print(...cells: readonly string[]): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`| ${cells.join(" | ")} |\n`));
}

/** Measures under every variant. */
async function measure(
  engine: Engine,
  what: string,
  one: (host: SessionHost, sparse: SparseSettings | undefined) => Promise<string>,
): Promise<void> {
  for (const sparse of VARIANTS) {
    const runner = new CountingRunner(engine);
    const result = await one(new SessionHost(runner), sparse);
    const fixed = sparse === undefined ? "dense" : `budget ${sparse.budget}`;
    const positions = runner.positions?.toFixed(1) ?? String(sparse?.budget ?? "all");
    print(what, sparse?.coverage === undefined ? fixed : `coverage ${sparse.coverage}`, result, positions);
  }
}

const engine = await Engine.open({ model: { directory: TIDE }, kvTokens: 4096, gpu: testProvider().name });
const text = await loadTextModel(TIDE);
const stop = engine.config.eosTokens;
print("measured", "attention", "result", "positions a set");
print("---", "---", "---", "---");
const needles = await readNeedles(EVALUATION_DATA);
for (const size of [300, 1000]) {
  const cases = needles.filter((needle) => needle.size === size).slice(0, needlesEach);
  await measure(engine, `needles in ${size} tokens`, async (host, sparse) => {
    const variants = [{ name: "", sparse, questionDecoded: true }];
    let right = 0;
    for (const needle of cases) {
      const [outcome] = await runNeedle(host, text, { needle, variants, stop });
      if (outcome?.correct) right++;
    }
    return `${right}/${cases.length}`;
  });
}
const windows = await readWindows(EVALUATION_DATA, { context: 512, perBook: windowsEach });
await measure(engine, "perplexity after 512 tokens", async (host, sparse) => {
  let nll = 0;
  for (const window of windows) nll += await windowNll(host, window, sparse);
  return Math.exp(nll / windows.length).toFixed(3);
});
await engine.close();
