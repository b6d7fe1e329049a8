/**
 * Makes sure that sequences with grammars have their masks before a step is planned. Waits for them only so long that a
 * slow grammar holds up its own sequence and no other. Knows sequences; knows nothing of what the masks say.
 */

import { maskWords } from "../../kernels/logits/mask_logits.ts";
import { asCodedError } from "../errors.ts";
import type { ConstraintHost } from "./constraint.ts";
import type { GenerationRequest } from "./generation.ts";
import { SequenceMasks } from "./sequence_masks.ts";
import type { Sequence } from "./sequence.ts";

/** A mask takes 0.1 to 0.5 ms; a step that went without its sequence would cost the sequence a whole one. */
const PATIENCE_MS = 5;

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

  /** Asks for what sequences lack, and waits for that for a moment; what is late already is not waited for again. */
  async settle(sequences: Iterable<Sequence>): Promise<void> {
    const requested = this.request(sequences);
    if (requested.length === 0) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, PATIENCE_MS));
    await Promise.race([Promise.all(requested), late]);
    clearTimeout(timer);
  }
}
