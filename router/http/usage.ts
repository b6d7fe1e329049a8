/** What a request cost, over all its choices, and how that looks on the wire. Knows counts only. */

import type { GenerationUsage } from "../scheduling/generation.ts";

/**
 * Sums the choices of a request: a prompt counts once however many answers it got.
 * @param usages by choice index, at least one
 * @param n choices for each prompt
 */
export function sumUsages(usages: readonly GenerationUsage[], n: number): GenerationUsage {
  const perPrompt = usages.filter((_, index) => index % n === 0);
  const completionTokens = sum(usages, (usage) => usage.completionTokens);
  const rowsRead = sum(usages, (usage) => usage.attention.rowsReadPerToken * usage.completionTokens);
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
      rowsReadPerToken: completionTokens === 0 ? 0 : rowsRead / completionTokens,
    },
  };
}

/** The wire form; OpenAI's fields, and ours under `attention`. */
export function usageBody(usage: GenerationUsage): Readonly<Record<string, unknown>> {
  const { promptTokens, completionTokens, cachedTokens, attention } = usage;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
    completion_tokens_details: { reasoning_tokens: 0 },
    attention: {
      mode: attention.mode,
      budget: attention.budget ?? null,
      ...(attention.coverage !== undefined && { coverage: attention.coverage }),
      select_layers: attention.selectLayers,
      context: attention.context,
      rows_read_per_token: Math.round(attention.rowsReadPerToken * 10) / 10,
    },
  };
}

function sum(usages: readonly GenerationUsage[], of: (usage: GenerationUsage) => number): number {
  return usages.reduce((total, usage) => total + of(usage), 0);
}
