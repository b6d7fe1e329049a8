/** What an answer cost and how it was made, in words for people. */

import type { PrefillProgress, Usage } from "../service/chat_stream.ts";
import type { Answer } from "./conversation.ts";

/** A share from 0 to 1 as people write it: more digits the smaller it is. */
export function percent(share: number): string {
  const value = share * 100;
  if (value > 0 && value < 0.1) return `${value.toFixed(2)} %`;
  if (value < 10 && value !== Math.round(value)) return `${value.toFixed(1)} %`;
  // All is all: what is nearly all must not look like it.
  return `${value < 100 ? Math.min(99, Math.round(value)) : Math.round(value)} %`;
}

// Made once: each costs as much as formatting a thousand numbers.
const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** A whole number with its thousands apart. */
export function whole(count: number): string {
  return WHOLE.format(count);
}

/** A time as people say it. */
export function seconds(ms: number): string {
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** Milliseconds until a prompt is read, by the pace so far; undefined while there is no pace to speak of. */
export function timeLeft({ total, cached, processed, elapsedMs }: PrefillProgress): number | undefined {
  const done = processed - cached;
  return done <= 0 || elapsedMs < 200 ? undefined : elapsedMs / done * (total - processed);
}

/** One line each, the most interesting first. */
export function describeAnswer(answer: Answer, layers: number | undefined): readonly string[] {
  const { usage } = answer;
  if (usage === undefined) return [];
  return [...describeSpeed(answer, usage), ...describeAttention(usage, layers), ...describeCorrection(usage)];
}

function describeSpeed({ times: { askedAt, firstTokenAt, endedAt } }: Answer, usage: Usage): readonly string[] {
  const { completion_tokens: tokens, prompt_tokens: prompt, prompt_tokens_details: { cached_tokens: cached } } = usage;
  const read = cached === 0
    ? `${whole(prompt)} tokens read`
    : `${whole(prompt)} tokens read, ${percent(cached / prompt)} from cache`;
  if (firstTokenAt === undefined || endedAt === undefined) return [read];
  const first = `${read} in ${seconds(firstTokenAt - askedAt)}`;
  const writing = (endedAt - firstTokenAt) / 1000;
  if (tokens < 2 || writing <= 0) return [first];
  return [first, `${whole(tokens)} written, ${((tokens - 1) / writing).toFixed(1)} tokens/s`];
}

function describeAttention(
  { attention, completion_tokens: tokens }: Usage,
  layers: number | undefined,
): readonly string[] {
  const { mode, budget, coverage, context, correction, rows_read_per_token: read } = attention;
  if (mode === "dense") return ["Full attention: every layer read every position"];
  const most = budget === "auto"
    ? `the positions that cover ${percent(coverage ?? 0)} of the attention`
    : `${whole(budget ?? 0)} of ${whole(context)} positions (${percent((budget ?? 0) / context)})`;
  const sparse = `Sparse layers read ${most}`;
  if (layers === undefined || tokens < 2) return [sparse];
  return [
    `${sparse}; over all layers ${percent(read / (layers * context))} of the cache per token${
      correction === undefined || correction.corrections === 0 ? "" : ", corrections included"
    }`,
  ];
}

function describeCorrection({ attention: { correction, audit } }: Usage): readonly string[] {
  const lines: string[] = [];
  if (audit !== undefined && audit.checked > 0) {
    lines.push(
      `${percent(audit.agreement ?? 0)} of the tokens are those of full attention (${whole(audit.checked)} checked)`,
    );
  }
  if (correction?.mode === "lossless") {
    lines.push(
      `Every token shown is that of full attention; ${whole(correction.dropped_drafts ?? 0)} drafts were dropped`,
    );
  } else if (correction !== undefined && correction.corrections > 0) {
    lines.push(`${whole(correction.rows)} rows were computed again with full attention`);
  }
  return lines;
}
