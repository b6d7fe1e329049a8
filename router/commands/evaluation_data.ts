/**
 * The data that `eval` and `calibrate` work on: needle cases, scored windows of held-out text, known greedy answers.
 * Knows their files; knows nothing of how they are computed.
 */

import { fileURLToPath } from "node:url";
import type { GreedyCase } from "../../engine/evaluation/greedy.ts";
import { type NeedleCase, parseNeedles } from "../../engine/evaluation/needles.ts";
import type { Window } from "../../engine/evaluation/perplexity.ts";

/** Data made for the embedded model. */
export const EVALUATION_DATA = fileURLToPath(new URL("../../tests/fixtures/tide-10m", import.meta.url));

/** A window with the mean negative log-likelihood that a reference found under full attention. */
export interface ReferenceWindow extends Window {
  readonly book: string;
  readonly nll: number;
}

/** A needle case with its intended length. */
export interface SizedNeedle extends NeedleCase {
  /** About so many tokens. */
  readonly size: number;
}

/** Token that opens a sequence of plain text. */
const BOS = 0;

/** All needle cases, in the order of the file. */
export async function readNeedles(directory: string): Promise<SizedNeedle[]> {
  const lines = await Deno.readTextFile(`${directory}/needles.jsonl`);
  const sizes = lines.split("\n").filter((line) => line.trim() !== "")
    .map((line) => (JSON.parse(line) as { approx_tokens: number }).approx_tokens);
  return parseNeedles(lines).map((needle, i) => ({ ...needle, size: sizes[i] ?? 0 }));
}

interface PerplexityFile {
  readonly "scored_tokens": number;
  readonly books: Readonly<
    Record<string, {
      readonly windows: readonly { readonly ids: readonly number[] }[];
      readonly contexts: Readonly<Record<string, { readonly nll: readonly number[] }>>;
    }>
  >;
}

/** The first `perBook` windows of every book behind a context of that many tokens. */
export async function readWindows(
  directory: string,
  { context, perBook }: { readonly context: number; readonly perBook: number },
): Promise<ReferenceWindow[]> {
  const file = JSON.parse(await Deno.readTextFile(`${directory}/perplexity.json`)) as PerplexityFile;
  return Object.entries(file.books).flatMap(([book, { windows, contexts }]) =>
    windows.slice(0, perBook).map(({ ids }, i): ReferenceWindow => {
      const nll = contexts[String(context)]?.nll[i];
      if (nll === undefined) {
        throw new RangeError(`Cannot read windows: ${book} has no reference for context ${context}`);
      }
      // The first token of the text behind the context is given, not scored.
      const tokens = Uint32Array.of(BOS, ...ids.slice(0, context + file.scored_tokens));
      return { book, nll, context, tokens };
    })
  );
}

/** All conversations with known answers. */
export async function readGreedy(directory: string): Promise<GreedyCase[]> {
  const cases = JSON.parse(await Deno.readTextFile(`${directory}/greedy.json`)) as {
    id: string;
    prompt_ids: number[];
    answer_ids: number[];
  }[];
  return cases.map(({ id, prompt_ids, answer_ids }) => ({
    id,
    prompt: Uint32Array.from(prompt_ids),
    answer: Uint32Array.from(answer_ids),
  }));
}
