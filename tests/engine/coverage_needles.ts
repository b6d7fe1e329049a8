/**
 * Run by hand: `deno run -A tests/engine/coverage_needles.ts [cases of each length]`. Answers needles of the embedded
 * model under fixed and adaptive budgets, questions decoded row by row, and prints how many answers are right and how
 * many positions a set had.
 */

import { Engine } from "../../engine/engine.ts";
import { loadTextModel, type NeedleVariant, runNeedle } from "../../engine/evaluation/needles.ts";
import { rowsRead } from "../../engine/layer_plan.ts";
import { SessionHost, type StepRunner } from "../../engine/session.ts";
import type { Step, StepResult } from "../../engine/span.ts";
import { EVALUATION_DATA, readNeedles } from "../../router/commands/evaluation_data.ts";
import { TIDE } from "../support/model_directory.ts";

const CAP = 256;

const VARIANTS: readonly NeedleVariant[] = [
  { name: "dense", sparse: undefined, questionDecoded: true },
  ...[16, 64, CAP].map((budget): NeedleVariant => ({
    name: `fixed ${budget}`,
    sparse: { budget, heads: "kv_head" },
    questionDecoded: true,
  })),
  ...[0.9, 0.95, 0.98, 0.995, 1].map((coverage): NeedleVariant => ({
    name: `coverage ${coverage}`,
    sparse: { budget: CAP, heads: "kv_head", coverage },
    questionDecoded: true,
  })),
];

/** Passes steps on, and counts what the adaptive rows in them read. */
class CountingRunner implements StepRunner {
  readonly #engine: Engine;
  rows = 0;
  positions = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  get facts(): Engine["facts"] {
    return this.#engine.facts;
  }

  async run(step: Step): Promise<StepResult> {
    const result = await this.#engine.run(step);
    const { roles = [] } = this.facts;
    const sparseLayers = roles.filter((role) => role === "sparse").length;
    result.spans.forEach(({ rowsRead: read }, i) => {
      if (read === undefined) return;
      this.rows++;
      this.positions += (read - rowsRead(roles, 0, step.spans[i]?.from ?? 0)) / sparseLayers;
    });
    return result;
  }
}

const perLength = Number(Deno.args[0] ?? 20);
const needles = await readNeedles(EVALUATION_DATA);
const text = await loadTextModel(TIDE);
const engine = await Engine.open({ model: { directory: TIDE }, kvTokens: 4096 });
const stop = engine.config.eosTokens;
const print = (line: string) => Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));

print("| text | attention | right | positions a set |");
print("| --- | --- | --- | --- |");
for (const size of [300, 1000]) {
  const cases = needles.filter((needle) => needle.size === size).slice(0, perLength);
  for (const variant of VARIANTS) {
    const runner = new CountingRunner(engine);
    const host = new SessionHost(runner);
    let right = 0;
    for (const needle of cases) {
      const [outcome] = await runNeedle(host, text, { needle, variants: [variant], stop });
      if (outcome?.correct) right++;
    }
    const mean = runner.rows === 0 ? `${variant.sparse?.budget ?? "all"}` : (runner.positions / runner.rows).toFixed(1);
    print(`| ${size} tokens | ${variant.name} | ${right}/${cases.length} | ${mean} |`);
  }
}
await engine.close();
