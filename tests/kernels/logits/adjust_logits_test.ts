import assert from "node:assert/strict";
import {
  ADJUSTED_WORDS,
  type AdjustedRow,
  adjustLogits,
  BANNED,
  type Entry,
  ENTRY_WORDS,
  IN_PROMPT,
  packAdjustedRows,
  packEntries,
} from "../../../kernels/logits/adjust_logits.ts";
import { countTokens, type CountUpdate, packUpdates, UPDATE_WORDS } from "../../../kernels/logits/count_tokens.ts";
import { adjustLogits as expectedLogits, type ReferenceAdjustment } from "../../reference/adjust_logits.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";

const fixture = gpuFixture();

const PLAIN = { repetition: 1, presence: 0, frequency: 0, place: undefined, changes: [0, 0], biases: [0, 0] } as const;

interface Adjusting {
  readonly rows: readonly AdjustedRow[];
  readonly entries?: readonly Entry[];
  readonly counts?: Uint32Array<ArrayBuffer>;
  /** Rows of the table, those that say nothing included. */
  readonly count?: number;
}

async function adjusted(
  logits: Float32Array<ArrayBuffer>,
  vocabulary: number,
  { rows, entries = [], counts, count = rows.length }: Adjusting,
): Promise<Float32Array<ArrayBuffer>> {
  const tensor = fixture.upload("f32", logits, [logits.length / vocabulary, vocabulary]);
  adjustLogits(fixture.commands, {
    logits: tensor,
    rows: fixture.upload("u32", packAdjustedRows(rows, count), [count, ADJUSTED_WORDS]),
    entries: fixture.upload("u32", packEntries(entries), [entries.length, ENTRY_WORDS]),
    counts: counts && fixture.upload("u32", counts, [counts.length / vocabulary, vocabulary]),
    count,
    vocabulary,
  });
  return await fixture.floats(tensor);
}

/** Counts as the GPU has them, of tokens of a prompt and of an output. */
function countsOf(vocabulary: number, prompt: readonly number[], output: readonly number[]): number[] {
  const counts = new Array<number>(vocabulary).fill(0);
  for (const token of prompt) counts[token] = IN_PROMPT;
  for (const token of output) counts[token] = (counts[token] ?? 0) + 1;
  return counts;
}

for (const [rows, vocabulary] of [[0, 16], [1, 1], [1, 255], [3, 257], [5, 1001], [2, 40_000]] as const) {
  Deno.test(`adjustLogits() equals plain loops, [${rows}, ${vocabulary}]`, async () => {
    const random = new Random(rows + vocabulary);
    const logits = random.normals(rows * vocabulary, 5);
    const some = (most: number) => Array.from({ length: random.integer(most) }, () => random.integer(vocabulary));
    const entries: Entry[] = [];
    const counts: number[] = [];
    const table: AdjustedRow[] = [];
    const expected: number[] = [];
    for (let row = 0; row < rows; row++) {
      const [prompt, kept, undone, added] = [some(300), some(300), some(20), some(20)];
      // What is undone was counted; each row has its own counts, not in the order of the rows.
      counts.unshift(...countsOf(vocabulary, prompt, [...kept, ...undone]));
      const changes = entries.length;
      entries.push(...undone.map((token) => ({ token, change: -1 })), ...added.map((token) => ({ token, change: 1 })));
      const biases = entries.length;
      const own = [...new Set(some(300))].map((token) => ({ token, bias: random.normal() }));
      entries.push(...own);
      const settings = {
        repetition: 0.5 + 2 * random.uniform(),
        presence: random.normal(),
        frequency: random.normal(),
      };
      table.push({
        row,
        ...settings,
        place: rows - 1 - row,
        changes: [changes, biases],
        biases: [biases, entries.length],
      });
      const asked: ReferenceAdjustment = {
        ...settings,
        biases: own.map(({ token, bias }) => [token, bias]),
        prompt,
        output: [...kept, ...added],
      };
      expected.push(...expectedLogits(logits.subarray(row * vocabulary, (row + 1) * vocabulary), asked));
    }
    const given = { rows: table, entries, counts: Uint32Array.from(counts), count: rows === 0 ? 0 : rows + 2 };
    // A division, a product and three sums in f32, of numbers up to some hundred.
    assertClose(await adjusted(logits, vocabulary, given), expected, { maxAbs: 2e-4 });
  });
}

Deno.test("adjustLogits() divides positive logits, multiplies the others, then adds; the rest stays", async () => {
  const logits = Float32Array.of(4, -4, 0, 7);
  const counts = Uint32Array.of(IN_PROMPT, 1, IN_PROMPT + 3, 0);
  const row = { ...PLAIN, row: 0, place: 0, repetition: 2, presence: 1, frequency: 0.5 };
  assert.deepEqual([...await adjusted(logits, 4, { rows: [row], counts })], [2, -9.5, -2.5, 7]);
});

Deno.test("adjustLogits() bans with a finite number, and leaves other rows alone, counted ones too", async () => {
  const logits = Float32Array.of(1, 2, 3, 4);
  const rows = [{ ...PLAIN, row: 1, biases: [0, 1] as const }];
  const entries = [{ token: 0, bias: BANNED }, { token: 1, bias: 5 }];
  assert.deepEqual([...await adjusted(logits, 2, { rows, entries })], [1, 2, Math.fround(BANNED), 4]);
  const counts = Uint32Array.of(9, 9);
  const uncounted = [{ ...PLAIN, row: 0, repetition: 3, presence: 1 }];
  assert.deepEqual([...await adjusted(logits, 2, { rows: uncounted, entries, counts })], [1, 2, 3, 4]);
});

Deno.test("countTokens() adds and takes away what is named and what was drawn, and keeps the prompt's bit", async () => {
  const counts = fixture.upload("u32", Uint32Array.of(0, IN_PROMPT + 1, 2, 7, 7, IN_PROMPT), [2, 3]);
  const updates: CountUpdate[] = [
    { place: 0, token: 1, change: -1 },
    { place: 0, token: 0, change: 1 },
    { place: 0, token: 0, change: 1 },
    { place: 0, token: { drawnAfter: 2 }, change: 1 },
    { place: 1, token: { drawnAfter: 0 }, change: 1 },
  ];
  countTokens(fixture.commands, {
    updates: fixture.upload("u32", packUpdates(updates, 8), [8, UPDATE_WORDS]),
    drawn: fixture.upload("u32", Uint32Array.of(2, 9, 2), [3]),
    counts,
    count: 8,
    vocabulary: 3,
  });
  assert.deepEqual([...await fixture.words(counts)], [2, IN_PROMPT, 3, 7, 7, IN_PROMPT + 1]);
});
