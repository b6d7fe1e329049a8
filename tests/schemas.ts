/**
 * Asks services of several models for random schemas; every finished answer must satisfy its own.
 * `deno task test:schemas [--count 200] [--seed 1] [--concurrency 4] [--maxTokens 400] [--workers 1]`: the embedded model
 * and small random ones of each family, each served by a router and workers of its own.
 */

import { parseArgs } from "node:util";
import { processTerminal, type Terminal } from "../router/terminal.ts";
import { schemaCampaign } from "./schemas/campaign.ts";
import { LiveService } from "./support/live_service.ts";
import { FIXTURES, TIDE } from "./support/model_directory.ts";

const MODELS = [TIDE, ...["llama", "qwen2", "qwen3", "mistral"].map((family) => `${FIXTURES}${family}`)];

const OPTIONS = {
  count: { type: "string", default: "200" },
  seed: { type: "string", default: "1" },
  concurrency: { type: "string", default: "4" },
  maxTokens: { type: "string", default: "400" },
  workers: { type: "string", default: "1" },
} as const;

async function main(terminal: Terminal): Promise<number> {
  const { values } = parseArgs({ args: Deno.args, options: OPTIONS });
  const [count, seed, concurrency, maxTokens, workers] = [
    whole(values.count),
    whole(values.seed),
    whole(values.concurrency),
    whole(values.maxTokens),
    whole(values.workers),
  ];
  const sum = { asked: 0, finished: 0, cut: 0, failures: 0 };
  for (const [i, model] of MODELS.entries()) {
    await using live = await LiveService.start({ model, kvTokens: 8192, workers, shareGpu: true });
    const own = Math.ceil((count - sum.asked) / (MODELS.length - i));
    const startMs = performance.now();
    const report = await schemaCampaign(
      (path, body) => live.ask(path, { model: live.model.id, ...body }),
      { count: own, seed: seed + i, concurrency, maxTokens },
      { attends: model === TIDE },
    );
    // Nothing is left of any answer.
    await live.idle(10_000);
    const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
    for (const failure of report.failures) terminal.line(failure);
    terminal.line(
      `${live.model.id}: ${report.asked} schemas in ${seconds} s: ${report.finished} answers finished, ` +
        `${report.cut} cut by their length, ${report.failures.length} failures`,
    );
    sum.asked += report.asked;
    sum.finished += report.finished;
    sum.cut += report.cut;
    sum.failures += report.failures.length;
  }
  const { asked, finished, cut, failures } = sum;
  terminal.line(`seed ${seed}: ${asked} schemas, ${finished} finished, ${cut} cut, ${failures} failures`);
  return failures === 0 ? 0 : 1;
}

function whole(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new RangeError(`Cannot ask for schemas: expected a whole number above 0, given ${text}`);
}

if (import.meta.main) Deno.exit(await main(processTerminal()));
