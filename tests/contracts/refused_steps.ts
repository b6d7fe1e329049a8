/** Steps that a group refuses as a whole: each contradicts what the group holds, or itself. */

import type { Session } from "../../engine/evaluation/hand_session.ts";
import type { PageMap } from "../../engine/page_map.ts";
import type { Step } from "../../engine/span.ts";
import type { ModelInfo } from "../../router/group/group.ts";
import { decode, open, prefill } from "../support/step_parts.ts";

/** What a step is made from. */
interface Scene {
  /** Open, of ten positions on one page. */
  readonly kept: Session;
  /** Was never opened. */
  readonly stranger: number;
  readonly model: ModelInfo;
  readonly map: PageMap;
}

/** By what is wrong. */
export const REFUSED_STEPS: readonly (readonly [string, (scene: Scene) => Partial<Step>])[] = [
  ["a span of a sequence that is not open", ({ stranger }) => ({ spans: [prefill(stranger, 0, 1)] })],
  ["a release of a sequence that is not open", ({ stranger }) => ({ release: [stranger] })],
  ["an opening of a sequence that is open", ({ kept }) => ({
    open: [open(kept.sequence)],
    spans: [decode(kept.sequence, kept.length, 1)],
  })],
  ["a release before a span that is refused", ({ kept, stranger }) => ({
    release: [kept.sequence],
    spans: [prefill(stranger, 0, 1)],
  })],
  ["an opening before a span that is refused", ({ kept, stranger, map }) => ({
    open: [open(stranger)],
    spans: [
      prefill(stranger, 0, 1, { newPages: Uint32Array.of(map.base(map.owner(0, 0)) + 3) }),
      decode(kept.sequence, kept.length + 1, 1),
    ],
  })],
  ["two spans of a sequence", ({ kept }) => ({
    spans: [decode(kept.sequence, kept.length, 1), decode(kept.sequence, kept.length, 1)],
  })],
  ["a span without rows", ({ kept }) => ({ spans: [decode(kept.sequence, kept.length, 0)] })],
  ["a span that leaves a gap", ({ kept }) => ({ spans: [decode(kept.sequence, kept.length + 1, 1)] })],
  ["a span beyond its pages", ({ kept }) => ({ spans: [prefill(kept.sequence, kept.length, 64)] })],
  ["a page that does not exist", ({ kept, map }) => ({
    spans: [prefill(kept.sequence, kept.length, 64, { newPages: Uint32Array.of(map.pages) })],
  })],
  ["a token outside the vocabulary", ({ kept, model }) => ({
    spans: [decode(kept.sequence, kept.length, 1, { tokens: Uint32Array.of(model.vocabSize) })],
  })],
  ["two sparse rows in a span", ({ kept }) => ({
    spans: [decode(kept.sequence, kept.length, 2, { attention: "sparse" })],
  })],
  ["an audit of a prefill", ({ kept }) => ({ spans: [prefill(kept.sequence, kept.length, 1, { logits: "audit" })] })],
  ["masks of the wrong size", ({ kept }) => ({
    spans: [decode(kept.sequence, kept.length, 1, { logits: "last", masks: new Uint32Array(1) })],
  })],
  ["a token that the step before did not draw", ({ kept, stranger, map }) => ({
    open: [open(stranger)],
    spans: [
      decode(kept.sequence, kept.length, 1),
      decode(stranger, 0, 1, { sampled: true, newPages: Uint32Array.of(map.base(map.owner(0, 0)) + 3) }),
    ],
  })],
];
