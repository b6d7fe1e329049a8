/** How fast prompts of given lengths are read, where the caches of what else is measured are filled by copying. */

import type { Table } from "./correction_tables.ts";
import type { Filling, PrefillFigures } from "./fill.ts";

/** One prompt. */
export interface PromptFigures extends PrefillFigures {
  /** Its length in tokens. */
  readonly context: number;
}

/**
 * Reads a prompt of each length; the first one twice, as working memory grows with it.
 * @param filling one that reads prompts
 */
export async function measurePrompts(filling: Filling, lengths: readonly number[]): Promise<PromptFigures[]> {
  const figures: PromptFigures[] = [];
  for (const context of [...lengths.slice(0, 1), ...lengths]) {
    const { session, prefill } = await filling.open(context);
    await session.close();
    if (prefill !== undefined) figures.push({ context, ...prefill });
  }
  return figures.slice(1);
}

/** A row for each prompt. */
export function promptTable(
  measured: readonly { readonly workers: number; readonly prompts: readonly PromptFigures[] }[],
): Table {
  return {
    columns: ["workers", "prompt", "tokens/s", "first token ms"],
    rows: measured.flatMap(({ workers, prompts }) =>
      prompts.map(({ context, tokensPerSecond, firstTokenMs }) => [
        ...[workers, context].map(String),
        ...[tokensPerSecond, firstTokenMs].map((value) => value.toFixed(0)),
      ])
    ),
  };
}
