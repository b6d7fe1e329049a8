/**
 * Fuzzes a service: bodies made from its OpenAPI document and changed by value, structure and byte. No answer may be
 * 5xx, late, torn, or an error that is no OpenAI error. `deno task fuzz [--count 10000] [--seed 1] [--first 0]
 * [--concurrency 8] [--answerMs 120000] [--url http://127.0.0.1:8000]`; without a URL it serves the embedded model itself.
 */

import { parseArgs } from "node:util";
import { processTerminal, type Terminal } from "../router/terminal.ts";
import { campaign, type Finding, type Send } from "./fuzz/campaign.ts";
import { type ApiDocument, Shots } from "./fuzz/shots.ts";
import { LiveService } from "./support/live_service.ts";

const OPTIONS = {
  count: { type: "string", default: "10000" },
  seed: { type: "string", default: "1" },
  first: { type: "string", default: "0" },
  concurrency: { type: "string", default: "8" },
  answerMs: { type: "string", default: "120000" },
  url: { type: "string" },
} as const;

/** Findings shown in full. */
const SHOWN_FINDINGS = 20;

async function main(terminal: Terminal): Promise<number> {
  const { values } = parseArgs({ args: Deno.args, options: OPTIONS });
  const [count, seed, first, concurrency, answerMs] = [
    whole(values.count),
    whole(values.seed),
    whole(values.first),
    whole(values.concurrency),
    whole(values.answerMs),
  ];
  await using own = values.url === undefined ? await LiveService.start() : undefined;
  const origin = values.url ?? own?.origin ?? "";
  const document: ApiDocument = await (await fetch(`${origin}/openapi.json`)).json();
  const models: { readonly data: readonly { readonly id: string }[] } = await (await fetch(`${origin}/v1/models`))
    .json();
  const shots = new Shots(document, seed, models.data[0]?.id ?? "");
  const startMs = performance.now();
  const report = await campaign(shots, overHttp(origin), {
    count,
    first,
    concurrency,
    answerMs,
    onAnswer: (done, findings) => {
      if (done % 1000 === 0) terminal.line(`${done} answers, ${findings} findings`);
    },
  });
  for (const [kind, times] of [...report.answers].sort()) terminal.line(`${kind.padEnd(32)} ${times}`);
  for (const finding of report.findings.slice(0, SHOWN_FINDINGS)) terminal.line(describe(finding));
  const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
  const slowest = (report.slowestMs / 1000).toFixed(1);
  terminal.line(
    `seed ${seed}, ${count} bodies in ${seconds} s: ${report.findings.length} findings, slowest ${slowest} s`,
  );
  return report.findings.length === 0 ? 0 : 1;
}

function whole(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new RangeError(`Cannot fuzz: expected a whole number, given ${text}`);
}

function overHttp(origin: string): Send {
  return async ({ path, body, headers }, signal) => {
    const response = await fetch(`${origin}${path}`, { method: "POST", body, headers, signal });
    const type = response.headers.get("content-type") ?? "";
    return { status: response.status, type, text: await response.text() };
  };
}

function describe({ shot, complaints, answer }: Finding): string {
  const body = new TextDecoder().decode(shot.body.subarray(0, 500));
  const lines = [
    `#${shot.index} ${shot.path} (${shot.how}): ${complaints.join("; ")}`,
    `  body of ${shot.body.length} bytes: ${body}`,
    `  answer: ${answer === undefined ? "none" : `${answer.status} ${answer.text.slice(0, 500)}`}`,
  ];
  return lines.join("\n");
}

if (import.meta.main) Deno.exit(await main(processTerminal()));
