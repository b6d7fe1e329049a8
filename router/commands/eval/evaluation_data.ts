/**
 * The data that `eval` and `calibrate` work on: needle cases, scored windows of held-out text, known greedy answers.
 * Knows their files; knows nothing of how they are computed.
 */

import { at } from "../../../kernels/at.ts";
import { fileURLToPath } from "node:url";
import type { GreedyCase } from "../../../engine/evaluation/greedy.ts";
import { type NeedleCase, parseNeedles } from "../../../engine/evaluation/needles.ts";
import type { Window } from "../../../engine/evaluation/perplexity.ts";
import { UsageError } from "../../errors.ts";

/** Data made for the embedded model. */
export const EVALUATION_DATA = fileURLToPath(new URL("../../../tests/fixtures/tide-10m", import.meta.url));

/** A window with the mean negative log-likelihood that a reference found under full attention. */
export interface ReferenceWindow extends Window {
  readonly book: string;
  readonly nll: number;
}

/** A long text of one book. */
export interface LongText extends Window {
  readonly book: string;
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
  return parseNeedles(lines).map((needle, i) => ({ ...needle, size: at(sizes, i) }));
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

/** The first `perBook` windows of every book after a context of that many tokens. */
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
      // The first token of the text after the context is given, not scored.
      const tokens = Uint32Array.of(BOS, ...ids.slice(0, context + file.scored_tokens));
      return { book, nll, context, tokens };
    })
  );
}

/**
 * One long text for each of the first `books` books, with `tokens` rows to score after the context.
 *
 * In the embedded data a book's windows are 2,256 tokens each and start 5,000 tokens apart. A text is the end of as many windows, joined in
 * order, as are needed: it jumps in the story wherever one window meets the next. The last token of the text is the last
 * of a window, so that up to 2,255 rows to score lie within one window, without a jump among them.
 *
 * @throws {UsageError} when a book's windows together are shorter
 */
export async function readLongTexts(
  directory: string,
  { context, tokens, books }: { readonly context: number; readonly tokens: number; readonly books: number },
): Promise<LongText[]> {
  const file = JSON.parse(await Deno.readTextFile(`${directory}/perplexity.json`)) as PerplexityFile;
  return Object.entries(file.books).slice(0, books).map(([book, { windows }]) => {
    const joined: number[] = [];
    for (const { ids } of windows) {
      if (joined.length < context + tokens) joined.push(...ids);
    }
    if (joined.length < context + tokens) {
      throw new UsageError(
        `Cannot build a text of ${book}: its windows hold ${joined.length} tokens, ` +
          `given a context of ${context} and ${tokens} to decode`,
      );
    }
    // With the first token there is one more than rows: the token after the last row.
    return { book, context, tokens: Uint32Array.of(BOS, ...joined.slice(-(context + tokens))) };
  });
}

/**
 * One text of so many tokens: the windows of all books joined, in order.
 * @throws {UsageError} when they are shorter
 */
export async function readJoinedText(directory: string, tokens: number): Promise<Uint32Array> {
  const file = JSON.parse(await Deno.readTextFile(`${directory}/perplexity.json`)) as PerplexityFile;
  const joined = Object.values(file.books).flatMap(({ windows }) => windows.flatMap(({ ids }) => ids));
  if (joined.length + 1 >= tokens) return Uint32Array.of(BOS, ...joined.slice(0, tokens - 1));
  throw new UsageError(`Cannot build a text: the windows hold ${joined.length + 1} tokens, given ${tokens}`);
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
