/** What a request cost over all its choices, and its form on the wire. Knows counts only. */

import type { AuditedToken, AuditUsage, CorrectionUsage, GenerationUsage } from "../scheduling/generation.ts";
import { sum } from "../sum.ts";

/** What a request cost, as its clients see it. */
export interface AnswerUsage extends GenerationUsage {
  /** Of the completion tokens, those of reasoning, its markers among them. */
  readonly reasoningTokens: number;
}

/**
 * Sums the choices of a request: a prompt counts once however many answers it got.
 * @param usages by choice index, at least one
 * @param n choices for each prompt
 */
export function sumUsages(usages: readonly GenerationUsage[], n: number): GenerationUsage {
  const perPrompt = usages.filter((_, index) => index % n === 0);
  const completionTokens = sum(usages, (usage) => usage.completionTokens);
  // The first token of each choice is drawn after its prompt.
  const decodedBy = (usage: GenerationUsage) => Math.max(0, usage.completionTokens - 1);
  const decoded = sum(usages, decodedBy);
  const rowsRead = sum(usages, (usage) => usage.attention.rowsReadPerToken * decodedBy(usage));
  const attentions = usages.map((usage) => usage.attention);
  const shown = attentions.find((attention) => attention.mode === "sparse") ?? attentions[0];
  return {
    promptTokens: sum(perPrompt, (usage) => usage.promptTokens),
    cachedTokens: sum(perPrompt, (usage) => usage.cachedTokens),
    completionTokens,
    attention: {
      mode: shown?.mode ?? "dense",
      budget: shown?.budget,
      ...(shown?.coverage !== undefined && { coverage: shown.coverage }),
      selectLayers: shown?.selectLayers ?? [],
      context: Math.max(0, ...attentions.map((attention) => attention.context)),
      rowsReadPerToken: decoded === 0 ? 0 : rowsRead / decoded,
      correction: sumCorrections(attentions.flatMap((attention, choice) => {
        return attention.correction === undefined ? [] : [{ ...attention.correction, choice }];
      })),
    },
  };
}

function sumCorrections(
  corrections: readonly (CorrectionUsage & { readonly choice: number })[],
): CorrectionUsage | undefined {
  const [first] = corrections;
  if (first === undefined) return undefined;
  const audits = corrections.flatMap(({ audit, choice }) => audit === undefined ? [] : [{ ...audit, choice }]);
  const { mode, every } = first;
  return {
    mode,
    every,
    stride: first.stride,
    corrections: sum(corrections, (correction) => correction.corrections),
    rows: sum(corrections, (correction) => correction.rows),
    rollbacks: sum(corrections, (correction) => correction.rollbacks),
    dropped: sum(corrections, (correction) => correction.dropped),
    audit: audits.length === 0 ? undefined : sumAudits(audits),
  };
}

function sumAudits(audits: readonly (AuditUsage & { readonly choice: number })[]): AuditUsage {
  const firsts = audits.flatMap(({ firstDivergence }) => firstDivergence ?? []);
  const listed = audits.flatMap(({ tokens, choice }) => tokens === undefined ? [] : [{ tokens, choice }]);
  return {
    checked: sum(audits, (audit) => audit.checked),
    agreed: sum(audits, (audit) => audit.agreed),
    divergence: sum(audits, (audit) => audit.divergence),
    measured: sum(audits, (audit) => audit.measured),
    firstDivergence: firsts.length === 0 ? undefined : Math.min(...firsts),
    ...(listed.length > 0 && {
      tokens: listed.flatMap(({ tokens, choice }) => tokens.map((token) => ({ ...token, choice }))),
    }),
  };
}

/** The wire form; OpenAI's fields, and ours under `attention`. */
export function usageBody(usage: AnswerUsage): Readonly<Record<string, unknown>> {
  const { promptTokens, completionTokens, cachedTokens, reasoningTokens, attention } = usage;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
    completion_tokens_details: { reasoning_tokens: reasoningTokens },
    attention: {
      mode: attention.mode,
      budget: attention.budget ?? null,
      ...(attention.coverage !== undefined && { coverage: attention.coverage }),
      select_layers: attention.selectLayers,
      context: attention.context,
      rows_read_per_token: Math.round(attention.rowsReadPerToken * 10) / 10,
      ...correctionBody(attention.correction),
    },
  };
}

/** Nothing when corrections were off. */
function correctionBody(correction: CorrectionUsage | undefined): Readonly<Record<string, unknown>> {
  if (correction === undefined) return {};
  const { mode, every, stride, corrections, rows, rollbacks, dropped, audit } = correction;
  const done = { mode, "correct_every": every, stride: stride ?? null, corrections, rows };
  if (audit === undefined) return { correction: done };
  return {
    correction: mode === "lossless" ? { ...done, rollbacks, dropped_drafts: dropped } : done,
    audit: {
      checked: audit.checked,
      agreed: audit.agreed,
      agreement: ratio(audit.agreed, audit.checked),
      mean_kl: ratio(audit.divergence, audit.measured),
      first_divergence: audit.firstDivergence ?? null,
      corrections,
      ...(audit.tokens && { tokens: audit.tokens.map(auditedTokenBody) }),
    },
  };
}

function auditedTokenBody({ choice, index, token, dense, divergence }: AuditedToken) {
  return { choice, index, token, dense_token: dense, agreed: token === dense, kl: divergence ?? null };
}

/** JSON has no NaN. */
function ratio(part: number, whole: number): number | null {
  return whole === 0 ? null : part / whole;
}
