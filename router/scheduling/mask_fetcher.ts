/**
 * Makes sure that sequences with grammars have their masks: before a step that cannot begin without them, and else while
 * it is computed. Waits for them only so long that a slow grammar holds up its own sequence and no other. Knows
 * sequences; knows nothing of what the masks say.
 */

import { maskWords } from "../../kernels/logits/mask_logits.ts";
import { within } from "../../kernels/within.ts";
import { joinWords } from "../../workers/position_lists.ts";
import { asCodedError } from "../errors.ts";
import type { ConstraintHost } from "./constraint.ts";
import type { GenerationRequest } from "./generation.ts";
import { PATIENCE_MS, SequenceMasks } from "./sequence_masks.ts";
import type { Sequence } from "./sequence.ts";
import type { Plan, PlannedSpan } from "./step_planner.ts";

/** What a step got that began without its masks. */
export interface SuppliedMasks {
  /** As the engine's `LateMasks` gives them. */
  readonly masks: Uint32Array;
  /** Sequences whose masks are not among them: what is drawn for them is void. */
  readonly unmasked: ReadonlySet<Sequence>;
}

/** Masks of all sequences. */
export class MaskFetcher {
  readonly #host: ConstraintHost | undefined;

  constructor(host: ConstraintHost | undefined) {
    this.#host = host;
  }

  /** For a new sequence; undefined: its answer is free. */
  open(
    { grammar, promptTokens }: GenerationRequest,
    { vocabSize }: { readonly vocabSize: number },
  ): SequenceMasks | undefined {
    if (grammar === undefined) return undefined;
    if (this.#host === undefined) {
      throw new RangeError("Cannot follow a grammar: the scheduler was given no host for it");
    }
    return new SequenceMasks(this.#host.follow(grammar), {
      promptTokens: promptTokens.length,
      words: maskWords(vocabSize),
    });
  }

  /** Asks for what sequences lack. @returns what was asked for now */
  request(sequences: Iterable<Sequence>): readonly Promise<void>[] {
    return Array.from(sequences).flatMap((sequence) => {
      const fetched = sequence.fetchMasks();
      if (fetched === undefined) return [];
      return fetched
        .catch((error: unknown) => sequence.owner?.fail(asCodedError(error, "follow the grammar")))
        .finally(() => sequence.owner?.wake());
    });
  }

  /**
   * Asks for what sequences lack, and waits a moment for what they cannot go on without; what is late already is not
   * waited for again.
   */
  async settle(sequences: Iterable<Sequence>): Promise<void> {
    const [heldUp, others] = [[...sequences].filter(isHeldUp), [...sequences].filter((one) => !isHeldUp(one))];
    this.request(others);
    await settled(PATIENCE_MS, this.request(heldUp));
  }

  /**
   * Gathers the masks that follow a step whose rows all tokens before are known of.
   * @param stepMs that the step takes anyway, presumably
   */
  async supply({ spans }: Plan, stepMs: number): Promise<SuppliedMasks> {
    const late = spans.filter(({ span }) => span.masksFollow);
    const current = late.filter(isCurrent).map(({ sequence }) => sequence);
    this.request(current);
    await settled(PATIENCE_MS + stepMs, current.map(({ masks }) => masks?.arrival ?? Promise.resolve()));
    const unmasked = new Set<Sequence>();
    const parts = late.map((planned) => {
      const { sequence, work: { from }, span } = planned;
      const own = isCurrent(planned) ? sequence.masks?.ofRows(span.logits, from, from + 1).masks : undefined;
      if (own !== undefined) return own;
      if (isCurrent(planned)) sequence.masks?.late();
      unmasked.add(sequence);
      return new Uint32Array(sequence.masks?.words ?? 0).fill(ALL_TOKENS);
    });
    return { masks: joinWords(parts), unmasked };
  }
}

/** A word of a mask that forbids nothing. */
const ALL_TOKENS = 0xffffffff;

function isHeldUp(sequence: Sequence): boolean {
  return sequence.lacksMasks;
}

/** Whether it is still the sequence's next row: neither is its answer over, nor was the row before it void. */
export function isCurrent({ sequence, work, span }: PlannedSpan): boolean {
  return !sequence.over && sequence.id === span.sequence && sequence.isNext(work);
}

/** Waits for all, but not for longer; how each ends is for others to see. */
async function settled(ms: number, promises: readonly Promise<void>[]): Promise<void> {
  if (promises.length > 0) await within(ms, Promise.allSettled(promises));
}
