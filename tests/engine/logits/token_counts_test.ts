/** Counts of tokens that follow a sequence wherever it goes: on, back, over other tokens, and out of memory. */

import assert from "node:assert/strict";
import fc from "fast-check";

import { GREEDY } from "../../../engine/evaluation/hand_session.ts";
import type { SequenceState } from "../../../engine/kv/sequences.ts";
import { placeAdjustments } from "../../../engine/logits/adjustments.ts";
import { TokenCounts } from "../../../engine/logits/token_counts.ts";
import { StepState } from "../../../engine/pass/step_state.ts";
import type { DrawnRow } from "../../../engine/row_batch.ts";
import { adjustLogits } from "../../../kernels/logits/adjust_logits.ts";
import { countTokens } from "../../../kernels/logits/count_tokens.ts";
import { adjustLogits as expectedLogits } from "../../reference/adjust_logits.ts";
import { assertClose } from "../../support/assert_close.ts";
import { gpuFixture } from "../../support/gpu_fixture.ts";
import { Random } from "../../support/random.ts";
import { open } from "../../support/step_parts.ts";

const fixture = gpuFixture();

const VOCABULARY = 12;
const PROMPT = 5;
const SETTINGS = { repetitionPenalty: 1.5, presencePenalty: 0.75, frequencyPenalty: 0.25 };
const BIASES = [[3, 0.5], [3, 1], [11, -2]] as const;

/** A span: its rows begin at `from`, and it is drawn after those from `first` to `last`. */
interface DrivenSpan {
  readonly of: SequenceState;
  readonly from: number;
  readonly first: number;
  readonly last: number;
  /** Its one token is that of the step before, which the host does not know. */
  readonly isSampled?: boolean;
}

function sequence(id: number, random: Random): SequenceState {
  const sampling = { ...GREEDY, ...SETTINGS, logitBias: BIASES };
  const tokens = Array.from({ length: PROMPT }, () => random.integer(VOCABULARY));
  return { open: open(id, { promptTokens: PROMPT, sampling }), slot: 0, physicalPages: [], tokens };
}

/** Compares what steps make of random logits with plain loops over the tokens before each row. */
class Steps {
  readonly counts: TokenCounts;
  readonly random: Random;
  #index = 0;

  constructor(seed: number, places = 16) {
    this.random = new Random(seed);
    this.counts = new TokenCounts(fixture.commands, VOCABULARY, places * VOCABULARY * 4);
  }

  /** Runs one step. @returns what it drew last for each span */
  async run(spans: readonly DrivenSpan[]): Promise<number[]> {
    const index = ++this.#index;
    const ids = spans.map(({ of, from }) => ({ sequence: of.open.sequence, from }));
    this.counts.rewrite(ids);
    const rows = spans.flatMap(rowsOf);
    const drawn = Uint32Array.from(rows, () => this.random.integer(VOCABULARY));
    const logits = this.random.normals(rows.length * VOCABULARY, 2);
    const expected = rows.flatMap((row, i) => [...expectedRow(row, logits.subarray(i * VOCABULARY))]);
    const sampled = spans.map((
      { of, from, isSampled },
    ) => (isSampled ? [of.tokens, from, of.tokens[from]] as const : []));
    for (const [tokens, from] of sampled) if (tokens !== undefined) tokens[from ?? NaN] = undefined;
    const adjusted = await this.#adjusted(rows, { index, drawn, logits });
    for (const [tokens, from, token] of sampled) if (tokens !== undefined) tokens[from ?? NaN] = token;
    assertClose(adjusted, expected, { maxAbs: 1e-4 });
    const last = spans.map((_, span) => drawn[rows.findLastIndex((row) => row.span === span)] ?? NaN);
    this.counts.learn({ index, spans: ids }, last.map((token) => ({ token })));
    return last;
  }

  async #adjusted(
    rows: readonly DrawnRow[],
    { index, drawn, logits }: { index: number; drawn: Uint32Array<ArrayBuffer>; logits: Float32Array<ArrayBuffer> },
  ): Promise<Float32Array> {
    const state = new StepState();
    const isLast = (row: DrawnRow) => rows.findLast(({ span }) => span === row.span) === row;
    const placed = placeAdjustments(this.counts, state, { rows, isLast, step: index });
    const { counts } = this.counts;
    if (placed?.updates === undefined || counts === undefined) throw new Error("Cannot adjust: nothing is counted");
    state.upload(fixture.commands, fixture.scratch);
    const tensor = fixture.upload("f32", logits, [rows.length, VOCABULARY]);
    const tables = { rows: state.tensor(placed.rows), entries: state.tensor(placed.entries), count: placed.count };
    adjustLogits(fixture.commands, { ...tables, logits: tensor, counts, vocabulary: VOCABULARY });
    countTokens(fixture.commands, {
      updates: state.tensor(placed.updates.table),
      count: placed.updates.count,
      drawn: fixture.upload("u32", drawn, [rows.length]),
      counts,
      vocabulary: VOCABULARY,
    });
    return await fixture.floats(tensor);
  }
}

function rowsOf({ of, first, last }: DrivenSpan, span: number): DrawnRow[] {
  return Array.from({ length: last + 1 - first }, (_, row) => {
    const drawn = { row, span, sequence: of, position: first + row };
    return { ...drawn, audit: undefined, mask: undefined, head: "vector" };
  });
}

function expectedRow({ sequence: { tokens }, position }: DrawnRow, logits: Float32Array): Float64Array {
  const known = tokens.slice(0, position + 1).map((token) => token ?? NaN);
  return expectedLogits(logits.slice(0, VOCABULARY), {
    repetition: SETTINGS.repetitionPenalty,
    presence: SETTINGS.presencePenalty,
    frequency: SETTINGS.frequencyPenalty,
    biases: BIASES,
    prompt: known.slice(0, PROMPT),
    output: known.slice(PROMPT),
  });
}

const KINDS = ["sampled", "sampled", "sampled", "told", "other", "back", "audit", "refresh", "forget"] as const;
const MOVE = fc.record({ kind: fc.constantFrom(...KINDS), rows: fc.nat(6), token: fc.nat(VOCABULARY - 1) });

/** A sequence whose token at `end` was drawn last, and is to be computed next. */
async function follow(steps: Steps, moves: readonly (typeof MOVE extends fc.Arbitrary<infer Move> ? Move : never)[]) {
  const of = sequence(1, steps.random);
  const beside = sequence(2, steps.random);
  const drawAfter = (at: number, other: number) => [
    { of, from: at, first: at, last: at },
    { of: beside, from: other, first: other, last: other },
  ];
  let [drawn = NaN, other = NaN] = await steps.run(drawAfter(PROMPT - 1, PROMPT - 1));
  let isCounted = true;
  for (const [i, { kind, rows, token }] of moves.entries()) {
    if (kind === "forget") steps.counts.forget(of.open.sequence);
    if (kind === "forget") isCounted = false;
    if (kind === "forget") continue;
    const end = of.tokens.length;
    const back = Math.max(PROMPT, end - rows);
    of.tokens[end] = kind === "other" ? token : drawn;
    if (kind === "back") of.tokens[back] = token;
    if (kind === "back") of.tokens.length = back + 1;
    const last = of.tokens.length - 1;
    const from = kind === "audit" || kind === "refresh" ? back : last;
    const first = kind === "audit" ? back : last;
    beside.tokens.push(other);
    const at = PROMPT + i - moves.slice(0, i).filter((move) => move.kind === "forget").length;
    [drawn = NaN, other = NaN] = await steps.run([
      { of, from, first, last, isSampled: kind === "sampled" && isCounted },
      { of: beside, from: at, first: at, last: at, isSampled: i % 3 > 0 },
    ]);
    isCounted = true;
  }
}

Deno.test("TokenCounts: penalties of a row are those of the tokens before it, however its sequence came there", async () => {
  const runs = fc.array(MOVE, { minLength: 1, maxLength: 20 });
  await fc.assert(
    fc.asyncProperty(fc.nat(), runs, async (seed, moves) => {
      const steps = new Steps(seed);
      await follow(steps, moves);
      steps.counts.close();
    }),
    { numRuns: 30, seed: 7 },
  );
});

Deno.test("TokenCounts counts again where too much differs, and after the memory went to another sequence", async () => {
  const steps = new Steps(3, 2);
  const all = [1, 2, 3].map((id) => sequence(id, steps.random));
  for (let round = 0; round < 4; round++) {
    for (const of of all) {
      const last = of.tokens.length - 1;
      const [drawn = NaN] = await steps.run([{ of, from: last, first: last, last }]);
      of.tokens.push(drawn);
    }
  }
  const [of, ...others] = all;
  assert.ok(of !== undefined);
  of.tokens.push(...Array.from({ length: 300 }, () => steps.random.integer(VOCABULARY)));
  const end = of.tokens.length - 1;
  await steps.run([{ of, from: PROMPT, first: end, last: end }]);
  await steps.run([{ of, from: PROMPT + 1, first: PROMPT + 1, last: PROMPT + 40 }]);
  const both = [of, ...others].map((of) => ({ of, from: PROMPT, first: PROMPT, last: PROMPT }));
  await assert.rejects(steps.run(both), { code: "out_of_gpu_memory", message: /3 sequences of one step exceed the 2/ });
  steps.counts.close();
  assert.equal(steps.counts.counts, undefined);
  await steps.run([{ of, from: end, first: end, last: end }]);
  steps.counts.close();
});

Deno.test("TokenCounts counts known tokens of a prompt that is not complete, and refuses several rows of it", async () => {
  const steps = new Steps(4);
  const of = sequence(1, steps.random);
  await steps.run([{ of, from: 0, first: 2, last: 2 }]);
  await steps.run([{ of, from: 3, first: 4, last: 4 }]);
  await assert.rejects(steps.run([{ of, from: 0, first: 1, last: 4 }]), { code: "invalid_step" });
  steps.counts.close();
});
