/**
 * `deno task bench:page [--context N] [--rounds N]`: what it costs a step of the embedded model that its answer is watched, and
 * the longest tasks of the page while an answer about 32k tokens is streamed and watched.
 */

import { parseArgs } from "node:util";

import { processTerminal, type Terminal } from "../../router/terminal.ts";
import { openBrowser, Visitor } from "../support/browser.ts";
import { LiveService } from "../support/live_service.ts";
import { PageService } from "../support/page_service.ts";
import { scriptedTide } from "../support/scripted_tide.ts";
import { MODEL_INFO } from "../support/test_service.ts";

const ANSWER_TOKENS = 64;
const DOCUMENT_TOKENS = 31_000;

/** Milliseconds of a step over one answer, prefill of the newest page included. */
async function stepMs(
  live: LiveService,
  prompt: readonly number[],
  { isWatched }: { readonly isWatched: boolean },
): Promise<number> {
  const sum = "tidepool_step_seconds_sum";
  const count = "tidepool_step_seconds_count";
  const before = [await live.metric(sum), await live.metric(count)] as const;
  const asked = { prompt, "max_tokens": ANSWER_TOKENS, "ignore_eos": true, stream: true, "return_progress": true };
  const response = await live.post("/v1/completions", { ...asked, attention: { mode: "sparse" } });
  let watched: Promise<string> | undefined;
  for await (const text of (response.body ?? new ReadableStream()).pipeThrough(new TextDecoderStream())) {
    const id = /"id":"(cmpl-\w+)"/.exec(text)?.[1];
    if (isWatched && id !== undefined) {
      watched ??= fetch(`${live.origin}/v1/sequences/${id}/tide`).then((tide) => tide.text());
    }
  }
  await watched;
  return ((await live.metric(sum)) - before[0]) / ((await live.metric(count)) - before[1]) * 1000;
}

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

async function measureCost(terminal: Terminal, context: number, rounds: number): Promise<void> {
  await using live = await LiveService.start({ kvTokens: context + 1024 });
  const prompt = Array.from({ length: context }, (_, i) => 8 + (i * 37 + (i >> 3) * 11) % 4000);
  // Fills the prefix cache and warms up; the rounds after it only decode.
  await stepMs(live, prompt, { isWatched: true });
  const [plain, watched]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    // In turns, and each first every other time: other work on the machine meets both alike.
    const [first, second] = [round % 2 === 0, round % 2 === 1];
    (first ? watched : plain).push(await stepMs(live, prompt, { isWatched: first }));
    (second ? watched : plain).push(await stepMs(live, prompt, { isWatched: second }));
  }
  const [a, b] = [median(plain), median(watched)];
  terminal.line(
    `${live.model.id} on ${live.model.adapter}, context ${context}, ${rounds} rounds of ${ANSWER_TOKENS} tokens`,
  );
  terminal.line(`step, not watched  ${a.toFixed(2)} ms (${plain.map((ms) => ms.toFixed(1)).join(" ")})`);
  terminal.line(`step, watched      ${b.toFixed(2)} ms (${watched.map((ms) => ms.toFixed(1)).join(" ")})`);
  terminal.line(`cost               ${((b / a - 1) * 100).toFixed(1)} %`);
}

async function measurePage(terminal: Terminal): Promise<void> {
  const model = { ...MODEL_INFO, kvPages: 1024, slices: [1024] };
  const browser = await openBrowser();
  try {
    const tide = scriptedTide({ promptTokens: DOCUMENT_TOKENS, everyMs: 50, budget: 256, layers: [2, 6], sets: 2 });
    await using served = await PageService.start({ deps: { selections: tide } });
    served.service.model = model;
    served.service.enter({ kind: "ready", epoch: 1, model });
    served.service.say("so it goes, again and again, ".repeat(30), { everyMs: 20, prefill: [16_000, DOCUMENT_TOKENS] });
    await using visitor = await Visitor.open(browser, served.origin, { width: 1440, height: 900 });
    await visitor.drop("document.txt", "Fog lay on the old harbour, and the gulls were asleep. ".repeat(1650));
    await visitor.page.evaluate(`{
      globalThis.longTasks = [];
      new PerformanceObserver((list) => longTasks.push(...list.getEntries().map(({ duration }) => Math.round(duration))))
        .observe({ type: "longtask" });
    }`);
    await visitor.ask("What lay on the harbour?");
    const answer = await visitor.answer();
    if (!answer.startsWith("so it goes")) throw new Error(`Cannot measure the page: ${answer}`);
    const tasks = (await visitor.page.evaluate<number[]>("longTasks")).sort((a, b) => b - a);
    const tokens = served.service.generator.requests.at(-1)?.promptTokens.length;
    const rows = await visitor.page.locator(".recording").getAttribute("data-rows");
    terminal.line(`page: ${tokens} tokens, ${rows} rows watched; tasks over 50 ms: ${tasks.join(" ") || "none"}`);
  } finally {
    await browser.close();
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      context: { type: "string", default: "2048" },
      rounds: { type: "string", default: "5" },
    },
  });
  const terminal = processTerminal();
  await measurePage(terminal);
  await measureCost(terminal, Number(values.context), Number(values.rounds));
  // The scripted service keeps its threads of text for all tests of a file: they would keep this process too.
  Deno.exit(0);
}
