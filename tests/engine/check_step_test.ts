/** Every way in which a step can contradict the state it is applied to. */

import assert from "node:assert/strict";

import { checkStep, type OpenSequence, type StepBounds } from "../../engine/check_step.ts";
import { PageMap } from "../../engine/page_map.ts";
import { GREEDY } from "../../engine/evaluation/hand_session.ts";
import type { Span, Step } from "../../engine/span.ts";
import { decode, open, prefill, step } from "../support/step_parts.ts";

const BOUNDS: StepBounds = {
  maxPositions: 200,
  vocabSize: 300,
  map: new PageMap([10]),
  maxPages: 4,
  slots: 3,
  calibrated: true,
  drawn: new Set(),
};

/** Sequence 1 has a page and 40 positions, sequence 2 is empty. */
const SEQUENCES: ReadonlyMap<number, OpenSequence> = new Map([
  [1, { physicalPages: [0], open: open(1), tokens: { length: 40 } }],
  [2, { physicalPages: [], open: open(2), tokens: { length: 0 } }],
]);

const sampling = { ...GREEDY, repetitionPenalty: 1.2 };

const pages = (...numbers: number[]) => Uint32Array.from(numbers);

const REFUSED: readonly (readonly [what: string, parts: Partial<Step>, message: RegExp])[] = [
  ["an unknown sequence", { spans: [prefill(7, 0, 1)] }, /sequence 7: it is not open$/],
  ["a release of an unknown sequence", { release: [7] }, /Cannot release sequence 7: it is not open$/],
  ["a release twice", { release: [1, 1] }, /Cannot release sequence 1: it is released twice$/],
  ["a span of what it releases", { release: [1], spans: [decode(1, 40, 1)] }, /1: the same step releases it$/],
  ["an open sequence opened again", { open: [open(1)] }, /Cannot open sequence 1: it is open already$/],
  ["two openings", { open: [open(3), open(3)] }, /Cannot open sequence 3: it is open already$/],
  ["a prefix page out of range", { open: [open(3, { prefixPages: pages(10) })] }, /3: page 10 is not below 10$/],
  ["a prefix beyond the context", { open: [open(3, { prefixPages: pages(1, 2, 3, 4, 5) })] }, /5 pages exceed 4$/],
  [
    "prefix tokens that are not the prefix",
    { open: [open(3, { prefixPages: pages(1), prefixTokens: pages(1, 2) })] },
    /2 prefix tokens are not the 64 of its pages$/,
  ],
  [
    "a coverage of nothing",
    { open: [open(3, { sparse: { budget: 16, heads: "kv_head", coverage: 0 } })] },
    /a coverage of 0 is not above 0 and at most 1$/,
  ],
  ["a tiny budget", { open: [open(3, { sparse: { budget: 15, heads: "kv_head" } })] }, /a budget of 15 is below 16$/],
  ["two spans of a sequence", { spans: [decode(1, 40, 1), prefill(1, 41, 1)] }, /it has two spans in one step$/],
  ["an empty span", { spans: [prefill(1, 40, 0)] }, /it has no rows$/],
  [
    "a token beyond the vocabulary",
    { spans: [prefill(1, 10, 1, { tokens: pages(300) })] },
    /token 300 is not below .* 300$/,
  ],
  [
    "a next token beyond the vocabulary",
    { spans: [decode(1, 10, 1, { logits: "all", next: 301 })] },
    /token 301 is not below the vocabulary's 300$/,
  ],
  ["a next token that is not scored", { spans: [decode(1, 10, 1, { logits: "last", next: 1 })] }, /logits are "last"/],
  ["a sparse span of many rows", { spans: [decode(1, 10, 2, { attention: "sparse" })] }, /has 2 rows, not one$/],
  ["a span beyond the context", { spans: [prefill(1, 40, 161)] }, /its end 201 exceeds the context of 200$/],
  ["a gap", { spans: [prefill(1, 41, 1)] }, /its start 41 is beyond the 40 positions that are there$/],
  ["a page out of range", { spans: [prefill(1, 40, 1, { newPages: pages(3, 12) })] }, /page 12 is not below 10$/],
  ["too many pages", { spans: [prefill(1, 40, 1, { newPages: pages(3, 4, 5, 6) })] }, /5 pages exceed 4$/],
  ["a span past its pages", { spans: [prefill(1, 40, 25)] }, /its end 65 exceeds the 64 positions of its pages$/],
];

for (const [what, parts, message] of REFUSED) {
  Deno.test(`checkStep() refuses ${what}`, () => {
    assert.throws(() => checkStep(step(parts), SEQUENCES, BOUNDS), {
      name: "EngineError",
      code: "invalid_step",
      message,
    });
  });
}

Deno.test("checkStep() refuses sparse rows without a calibration", () => {
  const sparse = step({ spans: [decode(1, 40, 1, { attention: "sparse" })] });
  checkStep(sparse, SEQUENCES, BOUNDS);
  assert.throws(() => checkStep(sparse, SEQUENCES, { ...BOUNDS, calibrated: false }), /the model has no calibration$/);
});

Deno.test("checkStep() lets the last token of a correction be that of the step before, where nothing needs to know it", () => {
  const drawn = { ...BOUNDS, drawn: new Set([1]) };
  const correction = (changes: Partial<Span>) => step({ spans: [decode(1, 20, 21, { sampled: true, ...changes })] });
  checkStep(correction({ logits: "audit" }), SEQUENCES, drawn);
  checkStep(correction({ logits: "last" }), SEQUENCES, drawn);
  const known = new Map([[1, { physicalPages: [0], open: open(1, { sampling }), tokens: { length: 40 } }]]);
  checkStep(correction({ logits: "last" }), known, drawn);
  assert.throws(() => checkStep(correction({ logits: "audit" }), known, drawn), /penalties of its audit count tokens/);
  assert.throws(() => checkStep(correction({ logits: "all" }), SEQUENCES, drawn), /step before, and would be scored$/);
  assert.throws(() => checkStep(correction({}), SEQUENCES, BOUNDS), /step before, which drew none$/);
  const prompt = step({ spans: [prefill(1, 40, 2, { sampled: true })] });
  assert.throws(() => checkStep(prompt, SEQUENCES, drawn), /step before, but it does not decode$/);
});

Deno.test("checkStep() counts a sequence that is released until the step is over", () => {
  checkStep(step({ open: [open(3)] }), SEQUENCES, BOUNDS);
  assert.throws(() => checkStep(step({ open: [open(3), open(4)], release: [1] }), SEQUENCES, BOUNDS), {
    code: "kv_exhausted",
    message: "Cannot open 2 sequences: 4 exceed 3",
  });
});

Deno.test("checkStep() lets in what only this step makes possible, and what is rolled back", () => {
  checkStep(
    step({
      open: [open(3, { prefixPages: pages(9) })],
      release: [2],
      spans: [
        prefill(3, 64, 10, { newPages: pages(0), logits: "last" }),
        decode(1, 5, 59, { logits: "all", next: 299 }),
      ],
    }),
    SEQUENCES,
    BOUNDS,
  );
});

Deno.test("checkStep() wants every page on the worker that owns its place", () => {
  const group = { ...BOUNDS, map: new PageMap([6, 4]) };
  const [first, second] = [0, 1].map((page) => group.map.base(group.map.owner(0, page)));
  const prefix = (...physical: (number | undefined)[]) =>
    step({ open: [open(3, { prefixPages: pages(...physical.map((page) => page ?? NaN)) })] });
  checkStep(prefix(first, second), SEQUENCES, group);
  assert.throws(() => checkStep(prefix(second, first), SEQUENCES, group), {
    code: "invalid_step",
    message: /3: page \d is not on the worker that owns its place$/,
  });
});
